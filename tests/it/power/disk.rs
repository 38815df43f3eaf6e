//! A disk as a power cut leaves it: what was synced is there, and of the rest any part.
//!
//! The model is stricter than any file system of today. The sync of a file makes its bytes durable and not its name; the
//! sync of a folder makes the names in it durable and not what they stand for. Of what is not synced any subset may have
//! reached the disk, in any order, and of a write any of its sectors. Where a file has grown and its bytes have not been
//! written there may be zeros or rubbish.

use super::trace::Event;
use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder},
    os::unix::fs::DirBuilderExt,
    path::Path,
};

/// What the disk writes as a whole.
const SECTOR_BYTES: usize = 512;

/// What was done to a disk, and what of it was synced.
#[derive(Clone, Default)]
pub struct Disk {
    inodes: Vec<Inode>,
    /// By path; the root is the empty one.
    folders: BTreeMap<String, Folder>,
}

#[derive(Clone, Default)]
struct Inode {
    durable: Vec<u8>,
    /// Not synced yet, with the number of the event.
    pending: Vec<(usize, Change)>,
    /// As every process sees it.
    now: Vec<u8>,
}

#[derive(Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Size(u64),
}

#[derive(Clone, Default)]
struct Folder {
    durable: BTreeMap<String, Node>,
    pending: Vec<(usize, Entry)>,
    now: BTreeMap<String, Node>,
}

#[derive(Clone, Copy)]
enum Node {
    File(usize),
    Folder,
}

#[derive(Clone)]
enum Entry {
    Set(String, Node),
    Gone(String),
    Renamed(String, String, Node),
}

/// How much of what is not synced has reached the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    Nothing,
    Everything,
    /// Each with an even chance.
    Some,
}

/// What a power cut does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    pub bytes: Kept,
    pub names: Kept,
    /// Writes that reached the disk did so in part: the last one of a file, or all.
    pub torn: Torn,
    /// Where a file has grown without its bytes there is rubbish instead of zeros, and behind the end of a log too.
    pub rubbish: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Torn {
    No,
    Last,
    All,
}

const fn loss(bytes: Kept, names: Kept, torn: Torn, rubbish: bool) -> Loss {
    Loss { bytes, names, torn, rubbish }
}

/// What is tried at each cut.
pub const LOSSES: [Loss; 10] = [
    loss(Kept::Nothing, Kept::Nothing, Torn::No, false),
    loss(Kept::Everything, Kept::Everything, Torn::No, false),
    loss(Kept::Nothing, Kept::Everything, Torn::No, true),
    loss(Kept::Everything, Kept::Nothing, Torn::No, false),
    loss(Kept::Some, Kept::Everything, Torn::No, false),
    loss(Kept::Some, Kept::Some, Torn::No, true),
    loss(Kept::Everything, Kept::Everything, Torn::Last, false),
    loss(Kept::Everything, Kept::Some, Torn::All, true),
    loss(Kept::Some, Kept::Everything, Torn::All, false),
    loss(Kept::Everything, Kept::Everything, Torn::No, true),
];

/// Files and folders by their paths below the root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    pub files: BTreeMap<String, Vec<u8>>,
    pub folders: Vec<String>,
}

impl Disk {
    /// What is below a folder now; all of it is durable.
    pub fn of(root: &Path) -> Disk {
        let image = Image::of(root);
        let mut disk = Disk::default();
        disk.folders.insert(String::new(), Folder::default());
        for path in &image.folders {
            disk.folders.insert(path.clone(), Folder::default());
            disk.name(path, Node::Folder);
        }
        for (path, bytes) in image.files {
            let inode = disk.inodes.len();
            disk.inodes.push(Inode { durable: bytes.clone(), pending: Vec::new(), now: bytes });
            disk.name(&path, Node::File(inode));
        }
        disk
    }

    fn name(&mut self, path: &str, node: Node) {
        let (folder, name) = split(path);
        let folder = self.folders.get_mut(folder).expect("folders come first");
        folder.durable.insert(name.to_owned(), node);
        folder.now.insert(name.to_owned(), node);
    }

    /// Does what happened as event `number`.
    pub fn apply(&mut self, number: usize, event: &Event) {
        match event {
            Event::Create(path) => {
                self.inodes.push(Inode::default());
                let node = Node::File(self.inodes.len() - 1);
                self.entry(number, path, |name| Entry::Set(name, node));
            }
            Event::MakeFolder(path) => {
                self.folders.insert(path.clone(), Folder::default());
                self.entry(number, path, |name| Entry::Set(name, Node::Folder));
            }
            Event::Remove(path) => self.entry(number, path, Entry::Gone),
            Event::Rename(from, to) => {
                let (folder, old) = split(from);
                let (same, new) = split(to);
                assert_eq!(folder, same, "names stay in their folder");
                let node = self.folder(folder).now[old];
                self.entry(number, from, |old| Entry::Renamed(old, new.to_owned(), node));
            }
            Event::Write(path, at, bytes) => {
                let inode = self.inode(path);
                let at = at.unwrap_or(inode.now.len() as u64);
                inode.change(number, Change::Write(at, bytes.clone()));
            }
            Event::Size(path, size) => self.inode(path).change(number, Change::Size(*size)),
            Event::Sync(path, before) => self.sync(path, *before),
            Event::Acknowledged | Event::Said(_) | Event::Ended => {}
        }
    }

    fn entry(&mut self, number: usize, path: &str, entry: impl FnOnce(String) -> Entry) {
        let (folder, name) = split(path);
        let folder = self.folder(folder);
        let entry = entry(name.to_owned());
        entry.apply(&mut folder.now);
        folder.pending.push((number, entry));
    }

    fn sync(&mut self, path: &str, before: usize) {
        let node = match path {
            "" => Node::Folder,
            path => self.find(path).unwrap_or_else(|| panic!("{path} is synced and not there")),
        };
        match node {
            Node::File(inode) => {
                let inode = &mut self.inodes[inode];
                let synced = inode.pending.extract_if(.., |(number, _)| *number < before);
                synced.for_each(|(_, change)| change.apply(&mut inode.durable));
            }
            Node::Folder => {
                let folder = self.folder(path);
                let synced = folder.pending.extract_if(.., |(number, _)| *number < before);
                synced.for_each(|(_, entry)| entry.apply(&mut folder.durable));
            }
        }
    }

    fn find(&self, path: &str) -> Option<Node> {
        let (folder, name) = split(path);
        self.folders.get(folder)?.now.get(name).copied()
    }

    /// True when there is a file or folder of this name.
    pub fn has(&self, path: &str) -> bool {
        self.find(path).is_some()
    }

    fn folder(&mut self, path: &str) -> &mut Folder {
        self.folders.get_mut(path).unwrap_or_else(|| panic!("no folder {path:?}"))
    }

    fn inode(&mut self, path: &str) -> &mut Inode {
        match self.find(path) {
            Some(Node::File(inode)) => &mut self.inodes[inode],
            _ => panic!("{path} is written and not there"),
        }
    }

    /// What every process sees.
    pub fn now(&self) -> Image {
        self.image(loss(Kept::Everything, Kept::Everything, Torn::No, false), &mut fastrand::Rng::with_seed(0))
    }

    /// What is there after the power was cut now.
    pub fn image(&self, loss: Loss, chance: &mut fastrand::Rng) -> Image {
        let mut image = Image::default();
        let mut open = vec![String::new()];
        while let Some(path) = open.pop() {
            let folder = &self.folders[&path];
            let mut names = folder.durable.clone();
            for (_, entry) in &folder.pending {
                if loss.names.keeps(chance) {
                    entry.apply(&mut names);
                }
            }
            for (name, node) in names {
                let below = if path.is_empty() { name } else { format!("{path}/{name}") };
                match node {
                    Node::File(inode) => {
                        let is_log = below.ends_with("-wal");
                        image.files.insert(below, self.inodes[inode].after(loss, is_log, chance));
                    }
                    Node::Folder => {
                        image.folders.push(below.clone());
                        open.push(below);
                    }
                }
            }
        }
        image.folders.sort();
        image
    }
}

impl Inode {
    fn change(&mut self, number: usize, change: Change) {
        change.apply(&mut self.now);
        self.pending.push((number, change));
    }

    fn after(&self, loss: Loss, is_log: bool, chance: &mut fastrand::Rng) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        let last = self.pending.iter().rposition(|(_, change)| matches!(change, Change::Write(..)));
        for (place, (_, change)) in self.pending.iter().enumerate() {
            let is_kept = loss.bytes.keeps(chance);
            let Change::Write(at, written) = change else {
                if is_kept {
                    change.apply(&mut bytes);
                }
                continue;
            };
            let at = *at as usize;
            let end = at + written.len();
            if bytes.len() < end && (is_kept || loss.rubbish) {
                let from = bytes.len();
                bytes.resize(end, 0);
                if loss.rubbish {
                    chance.fill(&mut bytes[from..]);
                }
            }
            if !is_kept {
                continue;
            }
            let is_torn = loss.torn == Torn::All || (loss.torn == Torn::Last && last == Some(place));
            let mut from = at;
            while from < end {
                let to = (from / SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES).min(end);
                if !is_torn || chance.bool() {
                    bytes[from..to].copy_from_slice(&written[from - at..to - at]);
                }
                from = to;
            }
        }
        if is_log && loss.rubbish {
            let from = bytes.len();
            bytes.resize(from + chance.usize(1..9000), 0);
            chance.fill(&mut bytes[from..]);
        }
        bytes
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Change::Size(size) => bytes.resize(*size as usize, 0),
            Change::Write(at, written) => {
                let at = *at as usize;
                if bytes.len() < at + written.len() {
                    bytes.resize(at + written.len(), 0);
                }
                bytes[at..at + written.len()].copy_from_slice(written);
            }
        }
    }
}

impl Entry {
    fn apply(&self, names: &mut BTreeMap<String, Node>) {
        match self {
            Entry::Set(name, node) => drop(names.insert(name.clone(), *node)),
            Entry::Gone(name) => drop(names.remove(name)),
            Entry::Renamed(from, to, node) => {
                names.remove(from);
                names.insert(to.clone(), *node);
            }
        }
    }
}

impl Kept {
    fn keeps(self, chance: &mut fastrand::Rng) -> bool {
        match self {
            Kept::Nothing => false,
            Kept::Everything => true,
            Kept::Some => chance.bool(),
        }
    }
}

impl Image {
    /// What is below a folder. The index of a log lives in memory only.
    pub fn of(root: &Path) -> Image {
        let mut image = Image::default();
        let mut open = vec![(root.to_owned(), String::new())];
        while let Some((folder, path)) = open.pop() {
            for entry in fs::read_dir(&folder).expect("a folder") {
                let entry = entry.expect("an entry");
                let name = entry.file_name().into_string().expect("a name in UTF-8");
                let below = if path.is_empty() { name } else { format!("{path}/{name}") };
                if entry.path().is_dir() {
                    image.folders.push(below.clone());
                    open.push((entry.path(), below));
                } else if !below.ends_with("-shm") {
                    image.files.insert(below, fs::read(entry.path()).expect("a file"));
                }
            }
        }
        image.folders.sort();
        image
    }

    /// Makes a folder hold what is below `under`, and nothing else.
    pub fn write(&self, under: &str, root: &Path) {
        let _ = fs::remove_dir_all(root);
        let make = |folder: &Path| DirBuilder::new().recursive(true).mode(0o700).create(folder).expect("a folder");
        make(root);
        let below = |path: &str| match under {
            "" => Some(path.to_owned()),
            under => Some(path.strip_prefix(under)?.strip_prefix('/')?.to_owned()),
        };
        for folder in self.folders.iter().filter_map(|path| below(path)) {
            make(&root.join(folder));
        }
        for (path, bytes) in &self.files {
            if let Some(path) = below(path) {
                fs::write(root.join(path), bytes).expect("a file");
            }
        }
    }

    /// Files below a folder, by their paths in it.
    pub fn below<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        let files = self.files.iter();
        files.filter_map(move |(path, bytes)| Some((path.strip_prefix(folder)?.strip_prefix('/')?, bytes.as_slice())))
    }
}

/// The folder of a path, and its name in it.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}
