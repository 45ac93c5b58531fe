//! The terminal: raw, with the alternate screen, and as it was when this is dropped or the program panics.

use std::io::{self, Stdout, stdout};
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};

use crossterm::cursor::{Hide, Show};
use crossterm::execute;
use crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;

use super::draw;
use super::view::View;

/// Whether the terminal has to be restored.
static IS_ENTERED: AtomicBool = AtomicBool::new(false);

pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    /// Sets the terminal up.
    pub(super) fn enter() -> io::Result<Screen> {
        // A panic's message has to be on the screen that stays.
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            restore();
            hook(info);
        }));
        IS_ENTERED.store(true, Ordering::SeqCst);
        let entered = enable_raw_mode().and_then(|()| execute!(stdout(), EnterAlternateScreen, Hide));
        let terminal = entered.and_then(|()| Terminal::new(CrosstermBackend::new(stdout())));
        match terminal {
            Ok(terminal) => Ok(Screen { terminal }),
            Err(error) => {
                restore();
                Err(error)
            }
        }
    }

    pub(super) fn draw(&mut self, view: &mut View) -> io::Result<()> {
        self.terminal.draw(|frame| draw::draw(frame, view)).map(drop)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// Restores the terminal, once. A terminal that is gone needs nothing.
fn restore() {
    if IS_ENTERED.swap(false, Ordering::SeqCst) {
        let _gone = execute!(stdout(), Show, LeaveAlternateScreen);
        let _gone = disable_raw_mode();
    }
}
