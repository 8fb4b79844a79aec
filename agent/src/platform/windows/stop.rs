//! How the agent is asked to stop: Ctrl-C and Ctrl-Break of a console, its closing, a shutdown, and
//! the manager of services.

use std::sync::LazyLock;

use tokio::signal::windows::{
    CtrlBreak, CtrlC, CtrlClose, CtrlShutdown, ctrl_break, ctrl_c, ctrl_close, ctrl_shutdown,
};
use tokio::sync::Notify;

static BY_SERVICE: LazyLock<Notify> = LazyLock::new(Notify::new);

/// Asks the agent to stop, from the thread of the manager of services.
pub(super) fn request() {
    // Kept until it is asked for.
    BY_SERVICE.notify_one();
}

/// Waits for requests to stop.
#[derive(Debug)]
pub struct StopRequests {
    interrupt: CtrlC,
    end: CtrlBreak,
    close: CtrlClose,
    shutdown: CtrlShutdown,
}

impl StopRequests {
    /// Begins to listen.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self { interrupt: ctrl_c()?, end: ctrl_break()?, close: ctrl_close()?, shutdown: ctrl_shutdown()? })
    }

    /// Waits for the next request.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.end.recv() => {}
            _ = self.close.recv() => {}
            _ = self.shutdown.recv() => {}
            () = BY_SERVICE.notified() => {}
        }
    }
}
