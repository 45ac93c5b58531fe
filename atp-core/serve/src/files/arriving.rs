//! The room for files that are being sent, and for those that runs write: what arrives at the same time shares what is left.

use std::collections::HashMap;
use std::sync::Arc;

use atp_api::ErrorKind;
use atp_executor::Operation;
use atp_protocol::files::Allowance;
use parking_lot::Mutex;
use tokio::sync::Mutex as Turn;

use super::folder::{folder_of, used};
use crate::problem::Refusal;
use crate::settings::ServeConfig;

/// The files that are being sent or written.
#[derive(Debug)]
pub(crate) struct Arriving {
    /// The bytes that each file that is being sent may have, by the id of its folder.
    reserved: Arc<Mutex<HashMap<String, u64>>>,
    /// The bytes that runs under way may still write.
    of_runs: Allowance,
    /// One looks at a time.
    turn: Turn<()>,
}

impl Default for Arriving {
    fn default() -> Self {
        Arriving { reserved: Arc::default(), of_runs: Allowance::of(0, ""), turn: Turn::default() }
    }
}

/// The room of a folder, which others have again when this is dropped, but for what is in the folder then.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) bytes: u64,
    id: String,
    reserved: Arc<Mutex<HashMap<String, u64>>>,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.reserved.lock().remove(&self.id);
    }
}

impl Arriving {
    /// Reserves room for the file in the folder `id`: as many bytes as it has, or, if that is not known, all that it may have.
    ///
    /// # Errors
    /// There is not so much room.
    pub(super) async fn room(
        &self,
        config: &ServeConfig,
        id: &str,
        size: Option<u64>,
    ) -> Result<Room, Refusal> {
        let _turn = self.turn.lock().await;
        let most = config.max_file.min(self.left(config).await?);
        let bytes = size.unwrap_or(most);
        if bytes > most {
            return Err(too_large(most));
        }
        self.reserved.lock().insert(id.to_owned(), bytes);
        Ok(Room { bytes, id: id.to_owned(), reserved: self.reserved.clone() })
    }

    /// What a run may write to its folder: with all other runs under way half of what is left when the last of them begins, as files
    /// that are sent need some meanwhile. None for a run that writes nothing.
    ///
    /// # Errors
    /// What is left cannot be counted.
    pub(crate) async fn of_run(
        &self,
        config: &ServeConfig,
        operation: &Operation,
    ) -> Result<Option<Allowance>, Refusal> {
        if folder_of(operation).is_none() {
            return Ok(None);
        }
        let _turn = self.turn.lock().await;
        let bytes = self.left(config).await?.div_ceil(2);
        let told = format!(
            "the files of runs may have {bytes} more bytes, half of what was left of serve.max_files ({}) when this run began: have \
             a run write less, remove files with DELETE /api/v1/files/ID, or raise serve.max_files",
            config.max_files
        );
        Ok(Some(self.of_runs.set(bytes, told)))
    }

    async fn left(&self, config: &ServeConfig) -> Result<u64, Refusal> {
        let arriving = self.reserved.lock().clone();
        let taken = used(config, &arriving).await?.saturating_add(arriving.values().sum());
        Ok(config.max_files.saturating_sub(taken))
    }
}

/// The refusal of a file for which there is no room.
pub(super) fn too_large(most: u64) -> Refusal {
    let problem = format!("the file has more than {most} bytes, the room that there is");
    Refusal::new(ErrorKind::RequestTooLarge, problem)
}
