//! Where settings come from, and how they are put together.

use std::io;
use std::path::{Path, PathBuf};

use config::Config;

use crate::layer::Layer;
use crate::problem::ConfigProblem;
use crate::schema::Schema;

/// Where settings come from, the later over the earlier: files, then layers in the order in which they were added.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    files: Vec<PathBuf>,
    must_exist: bool,
    layers: Vec<Layer>,
}

/// Settings that were put together.
#[derive(Debug)]
pub struct Loaded {
    /// The layers that were found, without what cannot be used of them; the lowest first.
    pub layers: Vec<Layer>,
    /// All of them, over the defaults.
    pub merged: Config,
    /// The files that were read.
    pub files: Vec<PathBuf>,
}

impl Sources {
    /// One file, which must exist.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Sources { files: vec![path.into()], must_exist: true, layers: Vec::new() }
    }

    /// Files that need not exist, the later over the earlier.
    pub fn files(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        Sources { files: paths.into_iter().collect(), must_exist: false, layers: Vec::new() }
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
        self.layers.push(layer);
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

    /// Reads the files: a layer for each that exists, and then the layers that were added; and which files these are. What
    /// cannot be read is added to `problems`.
    fn read(&self, problems: &mut Vec<ConfigProblem>) -> (Vec<Layer>, Vec<PathBuf>) {
        let (mut layers, mut files) = (Vec::new(), Vec::new());
        for path in &self.files {
            match std::fs::read_to_string(path) {
                Ok(text) => {
                    files.push(path.clone());
                    match Layer::toml(&path.display().to_string(), &text) {
                        Ok(layer) => layers.push(layer),
                        Err(problem) => problems.push(problem),
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound && !self.must_exist => {}
                Err(error) => problems.push(unreadable(path, &error)),
            }
        }
        layers.extend(self.layers.iter().cloned());
        (layers, files)
    }
}

fn unreadable(path: &Path, error: &io::Error) -> ConfigProblem {
    let origin = Some(path.display().to_string());
    ConfigProblem::new("", origin, format!("cannot be read: {error}"))
        .hint("check the path and the file's permissions")
}

impl<P: Into<PathBuf>> From<P> for Sources {
    fn from(path: P) -> Self {
        Sources::file(path)
    }
}

/// Reads all sources, checks them against the schema, and lays them over each other and over the defaults. What is wrong is
/// added to `problems`, all of it at once; what is right is used.
///
/// Blocks while it reads files.
///
/// # Errors
/// The values that are left cannot be put together. That is a bug of the schema or of the defaults.
pub fn load(
    sources: &Sources,
    schema: &Schema,
    defaults: Layer,
    problems: &mut Vec<ConfigProblem>,
) -> Result<Loaded, config::ConfigError> {
    let (layers, files) = sources.read(problems);
    let layers: Vec<_> = layers.into_iter().map(|layer| schema.check(layer, problems)).collect();
    let merged = Config::builder().add_source(defaults).add_source(layers.clone()).build()?;
    Ok(Loaded { layers, merged, files })
}

impl Loaded {
    /// Where the value or section at a path was set last; none where only the defaults have it.
    pub fn origin(&self, path: &[&str]) -> Option<&str> {
        self.layers.iter().rev().find_map(|layer| layer.get(path)?.origin())
    }
}
