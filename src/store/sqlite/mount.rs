//! What file system a store lies on: whether it is in memory, and, by the mount table, whether a sync means anything there.

use std::{
    ffi::OsString,
    fs,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

/// What an operator should know of the file system of a folder; a sentence. Nothing where the table cannot be read.
pub(super) fn remark(dir: &Path) -> Option<String> {
    judge(&fs::read_to_string("/proc/self/mountinfo").ok()?, dir)
}

/// True when a folder is kept in memory only.
pub(super) fn lies_in_memory(dir: &Path) -> bool {
    const TMPFS: u32 = 0x0102_1994;
    const RAMFS: u32 = 0x8584_58f6;
    // The type of the field differs between machines; its lower 32 bits are the number.
    rustix::fs::statfs(dir).is_ok_and(|found| matches!(found.f_type as u32, TMPFS | RAMFS))
}

/// File systems on which a state does not reliably outlive a power cut, or which several machines write to.
const WEAK: [(&str, &str); 14] = [
    ("ext2", NO_JOURNAL),
    ("vfat", NO_JOURNAL),
    ("msdos", NO_JOURNAL),
    ("exfat", NO_JOURNAL),
    ("ntfs", NO_JOURNAL),
    ("ntfs3", NO_JOURNAL),
    ("fuseblk", NO_JOURNAL),
    ("nfs", NETWORK),
    ("nfs4", NETWORK),
    ("cifs", NETWORK),
    ("smb3", NETWORK),
    ("9p", NETWORK),
    ("ceph", NETWORK),
    ("fuse.sshfs", NETWORK),
];
const NO_JOURNAL: &str = "has no journal that we trust: a power cut may damage it";
const NETWORK: &str = "is a network's: its locks and syncs are not ours to promise";

/// Mount options that take the meaning from a sync, or from what was not synced.
const WEAK_OPTIONS: [(&str, &str); 4] = [
    ("data=writeback", "after a power cut files that their writers did not sync may hold what others had deleted"),
    ("nobarrier", "what is synced may still be lost with the power"),
    ("barrier=0", "what is synced may still be lost with the power"),
    ("volatile", "nothing on it is ever synced"),
];

fn judge(mounts: &str, dir: &Path) -> Option<String> {
    // Of those that hold the folder the deepest counts; of two at one place the later, which hides the other.
    let holders = mounts.lines().filter_map(Mount::parse).filter(|mount| dir.starts_with(&mount.at));
    let mount = holders.max_by_key(|mount| mount.at.components().count())?;
    let at = format!("the state lies on {}, a file system (`{}`) that", mount.at.display(), mount.kind);
    if let Some((_, why)) = WEAK.iter().find(|(kind, _)| *kind == mount.kind) {
        return Some(format!("{at} {why}; choose another place with `--state`"));
    }
    let mut options = mount.options.iter().flat_map(|options| options.split(','));
    let (option, why) = options.find_map(|option| WEAK_OPTIONS.iter().find(|(weak, _)| *weak == option))?;
    Some(format!("{at} is mounted with `{option}`: {why}"))
}

/// A line of the table.
struct Mount<'a> {
    at: PathBuf,
    kind: &'a str,
    /// Of this mount, and of the file system.
    options: [&'a str; 2],
}

impl Mount<'_> {
    /// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
    fn parse(line: &str) -> Option<Mount<'_>> {
        let (mount, system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(4);
        let mut system = system.split(' ');
        let (at, own) = (mount.next()?, mount.next()?);
        Some(Mount { at: unescaped(at), kind: system.next()?, options: [own, system.nth(1).unwrap_or_default()] })
    }
}

/// Spaces and the like stand as `\040` in the table.
fn unescaped(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let octal =
            behind.first_chunk().filter(|digits: &&[u8; 3]| *first == b'\\' && digits.iter().all(u8::is_ascii_digit));
        let byte = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &behind[3..] } else { behind };
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
30 27 8:1 / /var rw,noatime master:2 propagate_from:1 - ext4 /dev/sda1 rw,data=writeback,commit=600
31 27 8:2 / /media/a\\040card rw - vfat /dev/mmcblk0p1 rw,fmask=0022
32 27 8:3 / /srv rw - xfs /dev/sdb rw,nobarrier
33 27 0:40 / /home rw - nfs4 host:/home rw,vers=4.2
34 27 0:41 / /box rw - overlay overlay rw,upperdir=/u,volatile
35 30 8:4 / /var/lib rw - ext4 /dev/sdc rw,nobarrier
36 30 8:5 / /var/lib rw - btrfs /dev/sdd rw,space_cache
broken line
37 27 8:6 / /short - ext4
";

    #[test]
    fn the_mount_that_holds_the_folder_is_judged() {
        let said = |dir: &str| judge(TABLE, Path::new(dir));
        for safe in ["/opt/state", "/var/lib/lamplighter", "/variable", "/srvx"] {
            assert_eq!(said(safe), None, "{safe}");
        }
        let on = |at: &str, kind: &str| format!("the state lies on {at}, a file system (`{kind}`) that");
        let weak = [
            ("/var/state", on("/var", "ext4") + " is mounted with `data=writeback`: after"),
            ("/media/a card/state", on("/media/a card", "vfat") + " has no journal"),
            ("/srv", on("/srv", "xfs") + " is mounted with `nobarrier`: what is synced"),
            ("/home/me", on("/home", "nfs4") + " is a network's"),
            ("/box/x", on("/box", "overlay") + " is mounted with `volatile`: nothing"),
        ];
        for (dir, begins) in weak {
            assert!(said(dir).is_some_and(|said| said.starts_with(&begins)), "{dir}: {:?}", said(dir));
        }
        assert_eq!((judge("", Path::new("/x")), judge("a - b", Path::new("/"))), (None, None));
    }

    #[test]
    fn the_table_of_this_machine_is_read() {
        assert!(
            fs::read_to_string("/proc/self/mountinfo")
                .expect("the kernel tells of its mounts")
                .lines()
                .all(|line| Mount::parse(line).is_some())
        );
        assert_eq!(unescaped(r"/a\134b\011c\04"), Path::new("/a\\b\tc\\04"));
    }
}
