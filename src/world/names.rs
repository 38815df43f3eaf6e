//! Names that are on the disk: after a power cut a file or folder is there only when the folder that its name stands in was
//! synced, and so on up to the root.

use rustix::io::Errno;
use std::{fs::File, io, path::Path};

/// Syncs every folder above `path`, which is there.
///
/// Those that cannot be opened or take no sync were not made by us. Blocks.
///
/// # Errors
/// When `path` cannot be followed to where it is (it is not there, or a folder above it may not be entered), or a disk fails while a
/// folder is synced (EIO). Whatever else a sync says is taken for a file system that has none for folders.
pub fn sync_above(path: &Path) -> io::Result<()> {
    let path = path.canonicalize()?;
    for folder in path.ancestors().skip(1) {
        let Ok(folder) = File::open(folder) else { continue };
        match folder.sync_all() {
            Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
