//! Where the socket is, and who may reach it.

use rustix::{
    fs::{Mode, OFlags},
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType},
};
use std::{
    fs, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{
            fs::PermissionsExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
};

/// Name of the socket in the folder of the state.
pub const SOCKET: &str = "serve.sock";

/// Longest path that an address of a socket holds, in bytes, with its NUL at the end.
const PATH_BYTES_MAX: usize = 107;

/// Opens the socket in this folder, and takes the place of one that a dead daemon left: the caller holds the lock by which
/// only one serves. Folder and socket are the user's alone.
///
/// # Errors
/// What the system refused.
pub fn bind(folder: &Path) -> io::Result<UnixListener> {
    let mode = fs::metadata(folder)?.permissions().mode();
    if mode & 0o077 != 0 {
        fs::set_permissions(folder, fs::Permissions::from_mode(mode & 0o7700))?;
    }
    let place = Place::of(folder)?;
    match fs::remove_file(&place.path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(&place.path)?;
    fs::set_permissions(&place.path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Connects to the socket in this folder, without waiting; `None` when nobody listens there.
pub(super) fn connect(folder: &Path) -> io::Result<Option<UnixStream>> {
    let nobody = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused, io::ErrorKind::NotADirectory];
    let connected = Place::of(folder).and_then(|place| {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        // A daemon that has taken nobody for long has no room for one more: a call that waits would wait as long.
        rustix::net::connect(&socket, &SocketAddrUnix::new(&place.path)?)?;
        Ok(UnixStream::from(socket))
    });
    match connected {
        Ok(stream) => Ok(Some(stream)),
        Err(error) if nobody.contains(&error.kind()) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The path of the socket, short enough for an address.
struct Place {
    path: PathBuf,
    /// What the path leads through.
    _folder: Option<OwnedFd>,
}

impl Place {
    fn of(folder: &Path) -> io::Result<Place> {
        let path = folder.join(SOCKET);
        if path.as_os_str().len() <= PATH_BYTES_MAX {
            return Ok(Place { path, _folder: None });
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(folder, flags, Mode::empty())?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()));
        Ok(Place { path, _folder: Some(folder) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_of_a_dead_daemon_is_replaced_and_a_long_path_is_no_hindrance() {
        let folder = tempfile::tempdir().expect("a folder");
        let long = folder.path().join("x".repeat(120));
        for folder in [folder.path().join("short"), long] {
            assert!(connect(&folder).expect("no folder is nobody").is_none());
            fs::create_dir(&folder).expect("a folder");
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("a mode");
            assert!(connect(&folder).expect("no socket is nobody").is_none());
            drop(bind(&folder).expect("a socket"));
            assert!(connect(&folder).expect("a dead socket is nobody").is_none());
            let _listener = bind(&folder).expect("it is replaced");
            assert!(connect(&folder).expect("somebody").is_some());
            let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o7777;
            assert_eq!((mode(&folder), mode(&folder.join(SOCKET))), (0o700, 0o600));
        }
    }

    #[test]
    fn a_daemon_that_takes_nobody_holds_up_nobody() {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = bind(folder.path()).expect("a socket");
        rustix::net::listen(&listener, 1).expect("room for two");
        let mut connected = Vec::new();
        let refused = loop {
            match connect(folder.path()) {
                Ok(stream) => connected.push(stream.expect("somebody listens")),
                Err(error) => break error,
            }
        };
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock, "after {}", connected.len());
    }
}
