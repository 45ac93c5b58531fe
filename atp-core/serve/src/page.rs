//! The page: static files in the binary.

use std::fmt::Write as _;
use std::sync::LazyLock;

use atp_api::ErrorKind;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use sha2::{Digest as _, Sha256};

use crate::auth::Access;
use crate::body::Path;
use crate::problem::Refusal;
use crate::route::{Content, Route};

/// The files of the folder `page`, each with its type.
macro_rules! files {
    ($($media_type:literal: $($name:literal)+;)+) => {
        &[$($(($name, $media_type, include_bytes!(concat!("../page/", $name)))),+),+]
    };
}

const FILES: &[(&str, &str, &[u8])] = files! {
    "text/html; charset=utf-8": "index.html";
    "text/css; charset=utf-8": "page.css" "palette.css" "views.css";
    "image/svg+xml": "icon.svg";
    "text/javascript; charset=utf-8": "api.js" "compose.js" "consoles.js" "diff.js" "dom.js" "events.js" "failure.js" "filter.js" "fleet.js"
        "form.js" "format.js" "groups.js" "keys.js" "live.js" "main.js" "plan.js" "route.js" "run.js" "runs.js" "screens.js"
        "session.js" "stream.js" "table.js" "verbs.js" "vms.js";
};

/// What a browser compares its copies with, in the order of the files: the files of another version would not fit together.
static TAGS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let tag = |bytes: &[u8]| {
        let digest = Sha256::digest(bytes);
        let mut tag = String::from('"');
        for byte in digest.iter().take(12) {
            // Writing to a string does not fail.
            let _written = write!(tag, "{byte:02x}");
        }
        tag.push('"');
        tag
    };
    FILES.iter().map(|(.., bytes)| tag(bytes)).collect()
});

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::new(Method::GET, "/", Access::Open, async |headers: HeaderMap| file("index.html", &headers))
            .about("The page.")
            .answers_with(200, Some(Content::of("text/html"))),
        Route::new(
            Method::GET,
            "/page/{name}",
            Access::Open,
            async |Path(name): Path<String>, headers: HeaderMap| file(&name, &headers),
        )
        .about("A file of the page.")
        .part("name", "The file's name.")
        .answers_with(200, Some(Content::of("*/*"))),
    ]
}

fn file(name: &str, headers: &HeaderMap) -> Response {
    let found = FILES.iter().zip(TAGS.iter()).find(|((known, ..), _)| *known == name);
    let Some(((_, media_type, bytes), tag)) = found else {
        return Refusal::new(ErrorKind::NothingThere, "the page has no such file").into_response();
    };
    let keep = [(header::CACHE_CONTROL, "no-cache"), (header::ETAG, tag.as_str())];
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    if known == Some(tag) {
        return (StatusCode::NOT_MODIFIED, keep).into_response();
    }
    (keep, [(header::CONTENT_TYPE, *media_type)], *bytes).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fs;

    use super::*;

    fn text(name: &str) -> &'static str {
        let (.., bytes) = FILES.iter().find(|(known, ..)| *known == name).unwrap();
        std::str::from_utf8(bytes).unwrap()
    }

    fn scripts() -> impl Iterator<Item = &'static str> {
        FILES.iter().map(|(name, ..)| *name).filter(|name| name.ends_with(".js"))
    }

    #[test]
    fn every_file_of_the_folder_is_served() {
        let folder = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/page")).unwrap();
        let names: BTreeSet<String> =
            folder.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        assert_eq!(names, FILES.iter().map(|(name, ..)| (*name).to_owned()).collect());
    }

    #[test]
    fn every_script_is_loaded_at_once() {
        let index = text("index.html");
        for name in scripts() {
            let kind = if name == "main.js" {
                "script type=\"module\" src"
            } else {
                "link rel=\"modulepreload\" href"
            };
            assert!(index.contains(&format!("<{kind}=\"/page/{name}\"")), "{name}");
        }
        assert!(
            !index.contains("style=") && !index.contains("onload"),
            "the content security policy refuses these"
        );
    }

    /// The content security policy refuses most of these as well.
    #[test]
    fn no_script_makes_html_or_code_of_text() {
        for name in scripts() {
            for way in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "new Function",
                "DOMParser",
                "srcdoc",
                "setHTML",
            ] {
                assert!(!text(name).contains(way), "{name}: {way}");
            }
            assert!(!text(name).contains("localStorage"), "{name}: what is kept there outlives the session");
        }
    }

    #[test]
    fn nothing_is_loaded_from_elsewhere() {
        for (name, ..) in FILES {
            let text = text(name).replace("http://www.w3.org/2000/svg", "");
            assert!(
                !text.contains("http://") && !text.contains("https://") && !text.contains("url("),
                "{name}"
            );
        }
    }

    /// The colours by name, for light and for dark.
    fn palettes() -> [BTreeMap<String, [f64; 3]>; 2] {
        let css = text("palette.css");
        let (light, dark) = css.split_once("@media (prefers-color-scheme: dark)").unwrap();
        [light, dark].map(|part| {
            let colours = part
                .lines()
                .filter_map(|line| line.trim().strip_prefix("--")?.strip_suffix(';')?.split_once(": #"));
            colours
                .map(|(name, hex)| {
                    let channel =
                        |at: usize| f64::from(u8::from_str_radix(&hex[at..at + 2], 16).unwrap()) / 255.0;
                    (name.to_owned(), [channel(0), channel(2), channel(4)])
                })
                .collect()
        })
    }

    /// The relative luminance of WCAG 2.
    fn luminance(colour: [f64; 3]) -> f64 {
        let linear =
            |value: f64| if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) };
        0.2126 * linear(colour[0]) + 0.7152 * linear(colour[1]) + 0.0722 * linear(colour[2])
    }

    fn contrast(one: [f64; 3], other: [f64; 3]) -> f64 {
        let (one, other) = (luminance(one), luminance(other));
        (one.max(other) + 0.05) / (one.min(other) + 0.05)
    }

    #[test]
    fn contrast_is_that_of_wcag_aa() {
        assert!((contrast([0.0; 3], [1.0; 3]) - 21.0).abs() < 1e-9);
        let grounds = ["page", "surface", "raised", "chosen"];
        let tones = ["good", "warn", "bad", "odd", "idle"];
        let mut texts: Vec<(String, String)> = vec![("on-accent".into(), "accent".into())];
        for ground in grounds {
            for text in ["text", "quiet", "accent"].into_iter().chain(tones) {
                texts.push((text.into(), ground.into()));
            }
        }
        for tone in tones {
            texts.push((tone.into(), format!("{tone}-fill")));
            texts.push(("text".into(), format!("{tone}-fill")));
        }
        texts.extend([("added".into(), "added-fill".into()), ("removed".into(), "removed-fill".into())]);
        let [light, dark] = palettes();
        assert_eq!(light.keys().collect::<Vec<_>>(), dark.keys().collect::<Vec<_>>());
        for palette in [light, dark] {
            for (text, ground) in &texts {
                let ratio = contrast(palette[text], palette[ground]);
                assert!(ratio >= 4.5, "{text} on {ground}: {ratio:.2}");
            }
            // The edges of fields and buttons.
            for ground in ["page", "surface"] {
                let ratio = contrast(palette["edge"], palette[ground]);
                assert!(ratio >= 3.0, "edge on {ground}: {ratio:.2}");
            }
        }
    }
}
