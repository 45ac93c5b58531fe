//! Files that clients send for copies into guests, and files that runs have made.
//!
//! Each is a folder below the service's folder of files, with a random id: a file that was sent is `ID/NAME`; what a run has
//! made is below `ID/`. A client names files by these, and never by paths of the service's machine.

mod arriving;
mod folder;

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path as FilePath};

use atp_api::ErrorKind;
use atp_api::serve::FileView;
use axum::body::{Body, HttpBody as _};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::fs;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::auth::{Access, Caller, permit_transfer};
use crate::body::{Path, Query, answer_with};
use crate::problem::Refusal;
use crate::route::{Content, Route};
use crate::state::Service;

pub(crate) use arriving::Arriving;
use arriving::too_large;
use folder::{OWNER, is_plain, make_folder, own_folder, unwritten};
pub(crate) use folder::{localise, places};

/// The most bytes of a file's name: what file systems take.
const MAX_NAME: usize = 255;

/// The header with the permission bits of a file, in octal digits.
const MODE: &str = "x-atp-mode";

/// The permission bit by which the owner reads.
const OWNER_READS: u32 = 0o400;

/// The type of a file's content.
const BYTES: &str = "application/octet-stream";

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::new(Method::POST, "/api/v1/files", Access::Change, receive)
            .about("Send a file that is to be copied into guests. Its id is the source of a push.")
            .query(
                "name",
                "The file's name.",
                json!({"type": "string", "minLength": 1, "maxLength": MAX_NAME}),
            )
            .query(
                "mode",
                "Its permission bits, in octal digits.",
                json!({"type": "string", "pattern": "^[0-7]{1,3}$"}),
            )
            .takes_with(Content::of(BYTES))
            .answers::<FileView>(201),
        Route::get("/api/v1/files/{id}/{*path}", send)
            .about("A file that a run has made, or that was sent.")
            .part("id", "The first part of its name in an outcome.")
            .part("path", "The rest of its name.")
            .answers_with(200, Some(Content::of(BYTES))),
        Route::new(Method::DELETE, "/api/v1/files/{id}", Access::Change, remove)
            .about("Remove a file that was sent, or what a run has made, before its time.")
            .part("id", "The first part of its name in an outcome.")
            .answers_with(204, None),
    ]
}

async fn receive(
    State(service): State<Service>,
    caller: Caller,
    mut query: Query,
    request: Request,
) -> Result<Response, Refusal> {
    let name = query.one("name")?.unwrap_or_else(|| "file".to_owned());
    let mode = query.parse("mode", "up to three octal digits", |text| {
        let is_plain = (1..=3).contains(&text.len()) && text.bytes().all(|digit| digit.is_ascii_digit());
        u32::from_str_radix(text, 8).ok().filter(|_| is_plain)
    })?;
    query.end()?;
    permit_transfer(&caller.token)?;
    if name.len() > MAX_NAME || !is_plain(&name) {
        return Err(Refusal::field("name", "expected a file's name, without folders"));
    }
    let (id, folder) = make_folder(&service.config(), service.clock(), &caller).await?;
    let path = folder.join(&name);
    let received = write(&service, request.into_body(), &path, &id).await;
    if received.is_err() {
        // What is left of it is removed when its time has come.
        let _ = fs::remove_dir_all(&folder).await;
    }
    let (bytes, sha256) = received?;
    if let Some(mode) = mode {
        // The service reads it in any case.
        let mode = Permissions::from_mode(mode | OWNER_READS);
        fs::set_permissions(&path, mode).await.map_err(unwritten)?;
    }
    service.audit().record(&caller, "file", json!({"id": id, "bytes": bytes, "sha256": sha256})).await?;
    Ok(answer_with(StatusCode::CREATED, &FileView { id, name, bytes, sha256 }))
}

/// Writes a body to a new file, within the limits of its size, and of the time without any of it.
async fn write(service: &Service, body: Body, path: &FilePath, id: &str) -> Result<(u64, String), Refusal> {
    let config = service.config();
    let room = service.arriving().room(&config, id, body.size_hint().exact()).await?;
    let most = room.bytes;
    let mut file = fs::File::create_new(path).await.map_err(unwritten)?;
    let (mut bytes, mut digest) = (0_u64, Sha256::new());
    let mut parts = body.into_data_stream();
    loop {
        let part = match timeout(config.request_timeout, parts.next()).await {
            Ok(Some(Ok(part))) => part,
            Ok(Some(Err(_))) => return Err(Refusal::invalid("the file was not sent to its end")),
            Ok(None) => break,
            Err(_) => return Err(Refusal::new(ErrorKind::RequestTimeout, "the file was not sent in time")),
        };
        bytes += part.len() as u64;
        if bytes > most {
            return Err(too_large(most));
        }
        digest.update(&part);
        file.write_all(&part).await.map_err(unwritten)?;
    }
    file.sync_all().await.map_err(unwritten)?;
    let sha256 = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((bytes, sha256))
}

async fn send(
    State(service): State<Service>,
    caller: Caller,
    Path((id, path)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let nothing = || Refusal::nothing("there is no such file");
    let folder = own_folder(&service.config(), &caller, &id).await?;
    let relative = FilePath::new(&path);
    let is_inside = relative.components().all(|part| matches!(part, Component::Normal(_)));
    if !is_inside || path == OWNER {
        return Err(nothing());
    }
    let path = folder.join(relative);
    // Nothing that is written here is a link; one would lead elsewhere.
    let real = fs::canonicalize(&path).await.map_err(|_| nothing())?;
    let root = fs::canonicalize(&folder).await.map_err(|_| nothing())?;
    let metadata = fs::metadata(&real).await.map_err(|_| nothing())?;
    if !real.starts_with(&root) || !metadata.is_file() {
        return Err(nothing());
    }
    let mode = metadata.permissions().mode() & 0o777;
    let file = match fs::File::open(&real).await {
        // It has the mode that it has in the guest, which may let no one read it.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let readable = Permissions::from_mode(mode | OWNER_READS);
            fs::set_permissions(&real, readable).await.map_err(|_| nothing())?;
            let opened = fs::File::open(&real).await.map_err(|_| nothing())?;
            fs::set_permissions(&real, Permissions::from_mode(mode)).await.map_err(|_| nothing())?;
            opened
        }
        opened => opened.map_err(|_| nothing())?,
    };
    let parts = futures_util::stream::unfold(file, |mut file| async move {
        let mut part = vec![0; 64 << 10];
        match file.read(&mut part).await {
            Ok(0) => None,
            Ok(read) => {
                part.truncate(read);
                Some((Ok::<_, io::Error>(part), file))
            }
            Err(error) => Some((Err(error), file)),
        }
    });
    let mut response = (
        [
            (header::CONTENT_TYPE, HeaderValue::from_static(BYTES)),
            (header::CONTENT_LENGTH, metadata.len().into()),
        ],
        Body::from_stream(parts),
    )
        .into_response();
    if let Ok(mode) = HeaderValue::from_str(&format!("{mode:o}")) {
        response.headers_mut().insert(MODE, mode);
    }
    // A file of a guest is nothing to show as a page of this origin.
    response.headers_mut().insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    Ok(response)
}

async fn remove(
    State(service): State<Service>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    let folder = own_folder(&service.config(), &caller, &id).await?;
    service.audit().record(&caller, "file-removed", json!({"id": id})).await?;
    fs::remove_dir_all(&folder).await.map_err(unwritten)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
