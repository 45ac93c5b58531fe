//! Where settings come from, and how they are put together.

use std::io;
use std::path::{Path, PathBuf};

use config::{Config, Map, Value};

use crate::layer::Layer;
use crate::problem::ConfigProblem;
use crate::schema::Schema;

/// Where settings come from, the later over the earlier: the defaults, files, and then layers in the order in which they were
/// added.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    defaults: Layer,
    files: Vec<PathBuf>,
    must_exist: bool,
    /// A source that could not be parsed is kept as the problem, to be reported with those of the others.
    layers: Vec<Result<Layer, ConfigProblem>>,
    /// The program's own keys.
    own: Option<Schema>,
}

/// Settings that were put together.
#[derive(Debug)]
pub struct Loaded {
    /// The layers that were found, without what cannot be used of them; the lowest first, the files before all others.
    pub layers: Vec<Layer>,
    /// All of them, over the defaults.
    pub merged: Config,
    /// The files that were read.
    pub files: Vec<PathBuf>,
}

impl Sources {
    /// One file, which must exist.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Sources { files: vec![path.into()], must_exist: true, ..Sources::default() }
    }

    /// Files that need not exist, the later over the earlier.
    pub fn files(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        Sources { files: paths.into_iter().collect(), ..Sources::default() }
    }

    /// Sets the values that apply where no source has one. They are not checked.
    pub fn with_defaults(self, defaults: Layer) -> Self {
        Sources { defaults, ..self }
    }

    /// Adds the keys of the program that reads these sources, beside those of the library that loads them. They are then
    /// known keys wherever these sources are loaded: checked, suggested, and merged.
    pub fn with_schema(self, own: Schema) -> Self {
        Sources { own: Some(own), ..self }
    }

    /// Adds the text of a TOML file: see [`Layer::toml`].
    pub fn with_toml(mut self, name: &str, text: &str) -> Self {
        self.layers.push(Layer::toml(name, text));
        self
    }

    /// Adds the variables whose names start with `PREFIX_`: see [`Layer::environment`].
    pub fn with_environment(
        self,
        prefix: &str,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        self.with_layer(Layer::environment(prefix, variables))
    }

    /// Adds a layer over all that were added before.
    pub fn with_layer(mut self, layer: Layer) -> Self {
        self.layers.push(Ok(layer));
        self
    }

    /// The files, whether they exist or not.
    pub fn paths(&self) -> &[PathBuf] {
        &self.files
    }

    /// Whether a file that does not exist is a problem.
    pub fn must_exist(&self) -> bool {
        self.must_exist
    }

    /// Reads the files. Returns a layer for each that exists, then the layers that were added; and the paths of the files
    /// that were read. What cannot be read is added to `problems`.
    fn read(&self, problems: &mut Vec<ConfigProblem>) -> (Vec<Layer>, Vec<PathBuf>) {
        let (mut parsed, mut files) = (Vec::new(), Vec::new());
        for path in &self.files {
            match std::fs::read_to_string(path) {
                Ok(text) => {
                    files.push(path.clone());
                    parsed.push(Layer::toml(&path.display().to_string(), &text));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound && !self.must_exist => {}
                Err(error) => problems.push(unreadable(path, &error)),
            }
        }
        let parsed = parsed.into_iter().chain(self.layers.iter().cloned());
        let layers = parsed.filter_map(|layer| layer.map_err(|problem| problems.push(problem)).ok());
        (layers.collect(), files)
    }
}

fn unreadable(path: &Path, error: &io::Error) -> ConfigProblem {
    let origin = Some(path.display().to_string());
    let hint = match error.kind() {
        io::ErrorKind::InvalidData => "write the file as text in UTF-8",
        _ => "check the path and the file's permissions",
    };
    ConfigProblem::new("", origin, format!("cannot be read: {error}")).hint(hint)
}

impl<P: Into<PathBuf>> From<P> for Sources {
    fn from(path: P) -> Self {
        Sources::file(path)
    }
}

/// Reads all sources, checks them against the schema and the program's own one, and lays them over each other and over the
/// defaults. All that is wrong is added to `problems`; what is right is used.
///
/// Blocks while it reads files.
pub fn load(sources: &Sources, schema: &Schema, problems: &mut Vec<ConfigProblem>) -> Loaded {
    let mut schema = schema.clone();
    if let Some(own) = &sources.own {
        schema.join(own.clone());
    }
    let (layers, files) = sources.read(problems);
    let layers: Vec<_> = layers.into_iter().map(|layer| schema.check(layer, problems)).collect();
    let merged = Config::builder().add_source(sources.defaults.clone()).add_source(layers.clone()).build();
    let merged = merged.unwrap_or_else(|error| {
        problems.push(ConfigProblem::new("", None, format!("the settings cannot be merged: {error}")));
        Config::default()
    });
    Loaded { layers, merged, files }
}

impl Loaded {
    /// The values of a section; empty where no source has it.
    pub fn section(&self, name: &str) -> Map<String, Value> {
        self.merged.get_table(name).unwrap_or_default()
    }

    /// Where the value or section at a path was set last; none where only the defaults have it.
    pub fn origin(&self, path: &[&str]) -> Option<&str> {
        self.layers.iter().rev().find_map(|layer| layer.get(path)?.origin())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    /// The keys of a library: one section.
    fn schema() -> Schema {
        Schema::section([("pool", Schema::section([("size", Schema::Value(Kind::AtLeastOne))]))])
    }

    fn size(loaded: &Loaded) -> (u64, Option<&str>) {
        (loaded.merged.get("pool.size").unwrap(), loaded.origin(&["pool", "size"]))
    }

    #[test]
    fn the_later_source_has_the_say_and_is_the_origin() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one.toml"), folder.path().join("two.toml"));
        std::fs::write(&one, "[pool]\nsize = 2").unwrap();
        std::fs::write(&two, "\n[pool]\nsize = 3").unwrap();
        let mut problems = Vec::new();
        let mut check = |sources: &Sources, value: u64, origin: Option<&str>| {
            assert_eq!(size(&load(sources, &schema(), &mut problems)), (value, origin));
            assert_eq!(problems, []);
        };
        let defaults = Layer::map("default", [("pool.size", 1)]);
        let sources = Sources::default().with_defaults(defaults.clone());
        check(&sources, 1, None);
        let sources = Sources::files([one.clone(), two.clone(), folder.path().join("none.toml")]);
        let sources = sources.with_defaults(defaults);
        check(&sources, 3, Some(&format!("{}:3", two.display())));
        let sources = sources.with_environment("T", [("T_POOL__SIZE".to_owned(), "4".to_owned())]);
        check(&sources, 4, Some("T_POOL__SIZE"));
        let sources = sources.with_layer(Layer::map("--size", [("pool.size", "5")]));
        check(&sources, 5, Some("--size"));
        let loaded = load(&sources, &schema(), &mut problems);
        assert_eq!((loaded.files, loaded.layers.len()), (vec![one, two], 4));
    }

    #[test]
    fn problems_of_all_sources_are_reported_and_what_is_right_is_used() {
        let sources = Sources::file("/nonexistent/s.toml")
            .with_toml("bad.toml", "[pool]\nsize =")
            .with_toml("wrong.toml", "[pool]\nsize = 0\nsiez = 1")
            .with_toml("right.toml", "[pool]\nsize = 7");
        let mut problems = Vec::new();
        assert_eq!(size(&load(&sources, &schema(), &mut problems)), (7, Some("right.toml:2")));
        let origins: Vec<_> = problems.iter().filter_map(|problem| problem.origin.as_deref()).collect();
        assert_eq!(origins, ["/nonexistent/s.toml", "bad.toml:2", "wrong.toml:3", "wrong.toml:2"]);
    }

    #[test]
    fn keys_of_the_program_are_known_beside_those_of_the_library() {
        let own = Schema::section([
            ("pool", Schema::section([("colour", Schema::Value(Kind::Text))])),
            ("serve", Schema::section([("timeout", Schema::Value(Kind::Timeout))])),
        ]);
        let text = "[pool]\nsize = 7\ncolour = 'red'\n[serve]\ntimeout = '5s'";
        let mut problems = Vec::new();
        load(&Sources::default().with_toml("f.toml", text), &schema(), &mut problems);
        let unknown: Vec<_> = problems.drain(..).map(|problem| problem.path).collect();
        assert_eq!(unknown, ["pool.colour", "serve"]);

        let sources = Sources::default().with_schema(own);
        let loaded = load(&sources.clone().with_toml("f.toml", text), &schema(), &mut problems);
        assert_eq!((problems.len(), size(&loaded).0), (0, 7));
        assert_eq!(loaded.merged.get_string("serve.timeout").unwrap(), "5s");

        let wrong = sources.with_toml("f.toml", "[serve]\ntimeuot = '5s'\n[pool]\nsize = 'x'");
        load(&wrong, &schema(), &mut problems);
        let texts: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert!(texts[0].starts_with("f.toml:4: `pool.size` is \"x\""), "{texts:?}");
        assert_eq!(texts[1], "f.toml:2: unknown key `serve.timeuot`");
        assert_eq!(problems[1].hint.as_deref(), Some("did you mean `timeout`?"));

        problems.clear();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("s.toml");
        std::fs::write(&file, b"[serve]\n\xff").unwrap();
        let other = Sources::file(&file).with_toml("f.toml", "[pool]\nfoo = 1");
        load(&other, &schema(), &mut problems);
        let hints: Vec<_> = problems.iter().map(|problem| problem.hint.as_deref()).collect();
        assert_eq!(hints, [Some("write the file as text in UTF-8"), None], "{problems:?}");
    }
}
