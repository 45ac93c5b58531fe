//! Files that clients send for copies into guests, and files that runs have made.
//!
//! Each is a folder below the service's folder of files, with a random id: a file that was sent is `ID/NAME`; what a run has
//! made is below `ID/`. A client names files by these, and never by paths of the service's machine.

use std::path::{Component, Path as FilePath, PathBuf};
use std::time::Duration;

use atp_api::serve::FileView;
use atp_api::{Data, ErrorKind, OperationSpec, Outcome, PullSpec, PushSpec, ScreenshotSpec};
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

use crate::auth::{Access, Caller, Secret, permit_transfer};
use crate::body::{Path, Query, answer_with};
use crate::problem::Refusal;
use crate::router::{Content, Route};
use crate::state::Service;

/// The file in each folder that names the token it belongs to.
const OWNER: &str = ".owner";

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
    let (id, folder) = make_folder(&service, &caller).await?;
    let path = folder.join(&name);
    let received = write(&service, request.into_body(), &path).await;
    if received.is_err() {
        // What is left of it is removed when its time has come.
        let _ = fs::remove_dir_all(&folder).await;
    }
    let (bytes, sha256) = received?;
    service.audit().record(&caller, "file", json!({"id": id, "bytes": bytes, "sha256": sha256})).await?;
    Ok(answer_with(StatusCode::CREATED, &FileView { id, name, bytes, sha256 }))
}

/// Writes a body to a new file, within the limits of its size, and of the time without any of it.
async fn write(service: &Service, body: Body, path: &FilePath) -> Result<(u64, String), Refusal> {
    let config = service.config();
    let left = config.max_files.saturating_sub(used(service).await?);
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

fn unwritten(error: std::io::Error) -> Refusal {
    Refusal::new(ErrorKind::StorageFailed, format!("the file cannot be written: {error}"))
}

/// A new folder of a caller, with its id. Folders whose time has passed are removed.
pub(crate) async fn make_folder(service: &Service, caller: &Caller) -> Result<(String, PathBuf), Refusal> {
    sweep(service).await;
    let id = Secret::new("").map_err(|error| Refusal::new(ErrorKind::Unknown, error.to_string()))?;
    let id = id.reveal().chars().take(32).collect::<String>();
    let folder = root(service)?.join(&id);
    fs::create_dir_all(&folder).await.map_err(unwritten)?;
    fs::write(folder.join(OWNER), &caller.token.name).await.map_err(unwritten)?;
    Ok((id, folder))
}

fn root(service: &Service) -> Result<PathBuf, Refusal> {
    let root = service.config().files();
    root.map_err(|error| Refusal::new(ErrorKind::StorageFailed, error.to_string()))
}

/// Removes folders that are older than files are kept. What cannot be removed is tried again with the next file.
async fn sweep(service: &Service) {
    let (Ok(root), ttl) = (root(service), service.config().file_ttl) else { return };
    let Ok(mut folders) = fs::read_dir(&root).await else { return };
    while let Ok(Some(folder)) = folders.next_entry().await {
        let made = folder.metadata().await.and_then(|metadata| metadata.modified());
        if made.is_ok_and(|made| is_older(made, ttl)) {
            let _ = fs::remove_dir_all(folder.path()).await;
        }
    }
}

fn is_older(made: std::time::SystemTime, than: Duration) -> bool {
    // A time in the future is that of a clock that was set back.
    made.elapsed().is_ok_and(|age| age > than)
}

/// The bytes of all files.
async fn used(service: &Service) -> Result<u64, Refusal> {
    let root = root(service)?;
    let counted = tokio::task::spawn_blocking(move || {
        fn size(folder: &FilePath) -> u64 {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            entries
                .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)))
                .map(|(path, metadata)| if metadata.is_dir() { size(&path) } else { metadata.len() })
                .sum()
        }
        size(&root)
    });
    counted.await.map_err(|_| Refusal::new(ErrorKind::StorageFailed, "the files cannot be counted"))
}

async fn send(
    State(service): State<Service>,
    caller: Caller,
    Path((id, path)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let nothing = || Refusal::nothing("there is no such file");
    let folder = own_folder(&service, &caller, &id).await?;
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

/// The folder of this id, if it is the caller's, or the caller may see those of others.
async fn own_folder(service: &Service, caller: &Caller, id: &str) -> Result<PathBuf, Refusal> {
    let nothing = || Refusal::nothing("there is no such file");
    if id.len() != 32 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(nothing());
    }
    let folder = root(service)?.join(id);
    let owner = fs::read_to_string(folder.join(OWNER)).await.map_err(|_| nothing())?;
    let may_see = owner == caller.token.name || caller.token.role == atp_api::serve::Role::Admin;
    if may_see { Ok(folder) } else { Err(nothing()) }
}

/// Whether a name is one of a file in a folder, and not hidden.
fn is_plain(name: &str) -> bool {
    let mut parts = FilePath::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name)
        && !name.starts_with('.')
        && !name.contains('\0')
}

/// Puts files of the service in the place of those that a client names: the source of a push is the id of a file that was
/// sent; what is pulled, and pictures, go to a new folder.
pub(crate) async fn localise(
    service: &Service,
    caller: &Caller,
    operation: OperationSpec,
) -> Result<OperationSpec, Refusal> {
    Ok(match operation {
        OperationSpec::Push(spec) => {
            permit_transfer(&caller.token)?;
            let id = spec.source.to_str().unwrap_or_default();
            let folder = own_folder(service, caller, id).await.map_err(|_| {
                let refusal = Refusal::field("operation.source", "expected the id of a file that was sent");
                refusal.with_hint("send the file with POST /api/v1/files first")
            })?;
            OperationSpec::Push(PushSpec { source: only_file(&folder).await?, ..spec })
        }
        OperationSpec::Pull(spec) => {
            permit_transfer(&caller.token)?;
            let (_, destination) = make_folder(service, caller).await?;
            OperationSpec::Pull(PullSpec { destination, separate: true, ..spec })
        }
        OperationSpec::Screenshot(spec) => {
            let (_, folder) = make_folder(service, caller).await?;
            OperationSpec::Screenshot(ScreenshotSpec { folder, ..spec })
        }
        operation => operation,
    })
}

async fn only_file(folder: &FilePath) -> Result<PathBuf, Refusal> {
    let mut entries = fs::read_dir(folder).await.map_err(unwritten)?;
    while let Ok(Some(entry)) = entries.next_entry().await {
        if entry.file_name() != OWNER {
            return Ok(entry.path());
        }
    }
    Err(Refusal::field("operation.source", "the file was not sent to its end"))
}

/// Puts the names by which a client fetches files in the place of paths of the service's machine.
pub(crate) fn publish(service: &Service, outcome: &mut Outcome) {
    let Ok(root) = service.config().files() else { return };
    let published = |path: &mut PathBuf| {
        if let Ok(inside) = path.strip_prefix(&root) {
            *path = inside.to_owned();
        }
    };
    match &mut outcome.data {
        Some(Data::File(report)) => published(&mut report.local_path),
        Some(Data::Screenshot(report)) => published(&mut report.file),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_that_of_one_file() {
        for (name, is) in [
            ("a", true),
            ("a b.tar.gz", true),
            ("", false),
            (".", false),
            ("..", false),
            (".owner", false),
            ("a/b", false),
            ("/a", false),
            ("a/", false),
        ] {
            assert_eq!(is_plain(name), is, "{name}");
        }
    }
}
