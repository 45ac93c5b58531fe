//! The room for files that are being sent: those that arrive at the same time share what is left.

use std::collections::HashMap;
use std::sync::Arc;

use atp_api::ErrorKind;
use parking_lot::Mutex;
use tokio::sync::Mutex as Turn;

use super::folder::used;
use crate::problem::Refusal;
use crate::settings::ServeConfig;

/// The files that are being sent.
#[derive(Debug, Default)]
pub(crate) struct Arriving {
    /// The bytes that each may have, by the id of its folder.
    reserved: Arc<Mutex<HashMap<String, u64>>>,
    /// One looks at a time.
    turn: Turn<()>,
}

/// The room of one file, which others have again when this is dropped.
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
        let arriving = self.reserved.lock().clone();
        let taken = used(config, &arriving).await?.saturating_add(arriving.values().sum());
        let most = config.max_file.min(config.max_files.saturating_sub(taken));
        let bytes = size.unwrap_or(most);
        if bytes > most {
            return Err(too_large(most));
        }
        self.reserved.lock().insert(id.to_owned(), bytes);
        Ok(Room { bytes, id: id.to_owned(), reserved: self.reserved.clone() })
    }
}

/// The refusal of a file for which there is no room.
pub(super) fn too_large(most: u64) -> Refusal {
    let problem = format!("the file has more than {most} bytes, the room that there is");
    Refusal::new(ErrorKind::RequestTooLarge, problem)
}
