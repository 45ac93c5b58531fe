//! Files that clients send for copies into guests, and files that runs have made.
//!
//! Each is a folder below the service's folder of files, with a random id: a file that was sent is `ID/NAME`; what a run has
//! made is below `ID/`. A client names files by these, and never by paths of the service's machine.

mod folder;

use std::path::{Component, Path as FilePath};

use atp_api::ErrorKind;
use atp_api::serve::FileView;
use axum::body::Body;
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
use crate::settings::ServeConfig;
use crate::state::Service;

use folder::{OWNER, is_plain, make_folder, own_folder, unwritten, used};
pub(crate) use folder::{localise, publish};

/// The most bytes of a file's name.
const MAX_NAME: usize = 200;

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
            .takes_with(Content::of(BYTES))
            .answers::<FileView>(201),
        Route::get("/api/v1/files/{id}/{*path}", send)
            .about("A file that a run has made, or that was sent.")
            .part("id", "The first part of its name in an outcome.")
            .part("path", "The rest of its name.")
            .answers_with(200, Some(Content::of(BYTES))),
    ]
}

async fn receive(
    State(service): State<Service>,
    caller: Caller,
    mut query: Query,
    request: Request,
) -> Result<Response, Refusal> {
    let name = query.one("name")?.unwrap_or_else(|| "file".to_owned());
    query.end()?;
    permit_transfer(&caller.token)?;
    if name.len() > MAX_NAME || !is_plain(&name) {
        return Err(Refusal::field("name", "expected a file's name, without folders"));
    }
    let (id, folder) = make_folder(&service.config(), &caller).await?;
    let path = folder.join(&name);
    let received = write(&service.config(), request.into_body(), &path).await;
    if received.is_err() {
        // What is left of it is removed when its time has come.
        let _ = fs::remove_dir_all(&folder).await;
    }
    let (bytes, sha256) = received?;
    service.audit().record(&caller, "file", json!({"id": id, "bytes": bytes, "sha256": sha256})).await?;
    Ok(answer_with(StatusCode::CREATED, &FileView { id, name, bytes, sha256 }))
}

/// Writes a body to a new file, within the limits of its size, and of the time without any of it.
async fn write(config: &ServeConfig, body: Body, path: &FilePath) -> Result<(u64, String), Refusal> {
    let left = config.max_files.saturating_sub(used(config).await?);
    let most = config.max_file.min(left);
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
            let problem = format!("the file has more than {most} bytes, the room that there is");
            return Err(Refusal::new(ErrorKind::RequestTooLarge, problem));
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
    let file = fs::File::open(&real).await.map_err(|_| nothing())?;
    let parts = futures_util::stream::unfold(file, |mut file| async move {
        let mut part = vec![0; 64 << 10];
        match file.read(&mut part).await {
            Ok(0) => None,
            Ok(read) => {
                part.truncate(read);
                Some((Ok::<_, std::io::Error>(part), file))
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
    // A file of a guest is nothing to show as a page of this origin.
    response.headers_mut().insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    Ok(response)
}
