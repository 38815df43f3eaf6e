//! What systemd is told, where it started the program: `sd_notify(3)` and the watchdog. Without it nothing happens here.

use lamplighter::{
    daemon::{Handle, News},
    world::World,
};
use std::{
    env,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    time::Duration,
};

/// The socket of the service manager.
#[derive(Clone)]
pub struct ServiceManager {
    socket: Option<std::sync::Arc<UnixDatagram>>,
    /// It wants to hear from us that often.
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// The one that the environment names.
    pub fn find() -> ServiceManager {
        let socket = env::var("NOTIFY_SOCKET").ok().and_then(|name| connect(&name).ok()).map(Into::into);
        let is_meant = env::var("WATCHDOG_PID").map_or(true, |pid| pid == std::process::id().to_string());
        let period = env::var("WATCHDOG_USEC").ok().filter(|_| is_meant).and_then(|usec| usec.parse().ok());
        ServiceManager { socket, watchdog: period.map(Duration::from_micros) }
    }

    /// Passes news on.
    pub fn tell(&self, news: &News<'_>) {
        match news {
            News::Ready => self.send("READY=1"),
            News::Does(what) => self.send(&format!("STATUS={what}")),
            News::Stopping => self.send("STOPPING=1"),
        }
    }

    /// Says again and again that the loop goes round: a loop that does not is started anew.
    pub async fn feed(self, world: World, handle: Handle) {
        let Some(period) = self.watchdog else { return };
        while handle.is_alive().await {
            self.send("WATCHDOG=1");
            world.sleep(period / 3).await;
        }
    }

    fn send(&self, text: &str) {
        // A manager that does not read loses the news, not we our time.
        let _ = self.socket.as_ref().map(|socket| socket.send(text.as_bytes()));
    }
}

fn connect(name: &str) -> std::io::Result<UnixDatagram> {
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    Ok(socket)
}
