//! The page: static files in the binary.

use atp_api::ErrorKind;
use axum::http::{Method, header};
use axum::response::{IntoResponse as _, Response};

use crate::auth::Access;
use crate::body::Path;
use crate::problem::Refusal;
use crate::router::{Content, Route};

/// The files, by the name below `/page/`.
const FILES: &[(&str, &str, &[u8])] =
    &[("index.html", "text/html; charset=utf-8", include_bytes!("index.html"))];

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::new(Method::GET, "/", Access::Open, async || file("index.html"))
            .about("The page.")
            .answers_with(200, Some(Content::of("text/html"))),
        Route::new(Method::GET, "/page/{name}", Access::Open, async |Path(name): Path<String>| file(&name))
            .about("A file of the page.")
            .part("name", "The file's name.")
            .answers_with(200, Some(Content::of("*/*"))),
    ]
}

fn file(name: &str) -> Response {
    match FILES.iter().find(|(known, ..)| *known == name) {
        // The page of another version would not fit the API.
        Some((_, media_type, bytes)) => {
            ([(header::CONTENT_TYPE, *media_type), (header::CACHE_CONTROL, "no-cache")], *bytes)
                .into_response()
        }
        None => Refusal::new(ErrorKind::NothingThere, "the page has no such file").into_response(),
    }
}
