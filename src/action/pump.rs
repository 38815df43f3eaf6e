//! Both ends of a child's pipes, served at once and in flat memory: standard input fed, output cut into lines, logged up
//! to a limit, collected up to a limit, its last lines kept.

use super::{Acted, ItemContext, Out, Stop, files::one_line};
use crate::{
    item::{Class, Failure, Value},
    limits::{
        CHILD_BLOCK_BYTES_MAX, CHILD_BLOCK_BYTES_MIN, CHILD_LINE_BYTES_MAX, CHILD_LOG_BYTES_MAX, CHILD_LOG_LINES_MAX,
        CHILD_READS_BEFORE_YIELD, CHILD_TAIL_LINES, LEFTOVER_POLL_MAX,
    },
    world::World,
};
use futures_lite::future::{or, yield_now};
use log::Level;
use rustix::io::Errno;
use smol::Async;
use std::{
    collections::VecDeque,
    future::poll_fn,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    task::Poll,
};

/// Our end of a pipe of a child. Most children say little and end soon: the reactor hears of a pipe only when it has to be
/// waited for.
pub(super) struct Pipe {
    fd: Arc<OwnedFd>,
    waited: Option<Async<Arc<OwnedFd>>>,
    /// The last read filled its block: the next one is larger.
    filled: bool,
}

/// Which way a pipe is waited for.
#[derive(Clone, Copy)]
enum Until {
    Readable,
    Writable,
}

/// What goes on in the pipes of one child, seen by who decides how long to wait for their end.
pub(super) struct Pumps {
    world: World,
    /// Bytes read so far, of all pipes.
    read: AtomicU64,
    /// Blocks read so far.
    turns: AtomicU32,
    /// A value is being handed on: that nothing is read is not the child's doing.
    giving: AtomicBool,
    /// Nothing more is read: what is there is the end.
    cut: AtomicBool,
    tail: Mutex<Tail>,
}

/// The last lines of output.
#[derive(Default)]
struct Tail(VecDeque<String>);

/// Cuts blocks into lines; of a line that is too long the beginning is kept.
pub(super) struct LineCutter {
    partial: Vec<u8>,
    max: usize,
    cut: bool,
}

/// One line of a child.
pub(super) struct Line<'a> {
    /// Without its end (`\n` or `\r\n`).
    pub bytes: &'a [u8],
    /// It was longer than the limit.
    pub cut: bool,
}

/// Writes a child's output to the log, up to a limit.
pub(super) struct LogLines<'a> {
    cx: &'a ItemContext,
    lines: u64,
    bytes: u64,
    silent: u64,
}

impl Pipe {
    /// `fd` is ours alone.
    ///
    /// # Errors
    /// When it cannot be made non-blocking.
    pub fn new(fd: OwnedFd) -> io::Result<Pipe> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Pipe { fd: Arc::new(fd), waited: None, filled: false })
    }

    /// The result of `work`, once it does not have to wait.
    async fn when<T>(
        &mut self,
        until: Until,
        world: &World,
        mut work: impl FnMut(BorrowedFd<'_>) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        loop {
            match work(self.fd.as_fd()) {
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => {}
                done => return done,
            }
            if self.waited.is_none() {
                self.waited = Async::new_nonblocking(self.fd.clone()).ok();
            }
            let ready = match (&self.waited, until) {
                (Some(waited), Until::Readable) => waited.readable().await.is_ok(),
                (Some(waited), Until::Writable) => waited.writable().await.is_ok(),
                (None, _) => false,
            };
            if !ready {
                // The reactor has no room for it now: it is looked at now and then.
                self.waited = None;
                world.sleep(LEFTOVER_POLL_MAX).await;
            }
        }
    }
}

impl Pumps {
    /// Nothing was read yet.
    pub fn new(world: World) -> Pumps {
        Pumps {
            world,
            read: AtomicU64::new(0),
            turns: AtomicU32::new(0),
            giving: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            tail: Mutex::default(),
        }
    }

    /// Bytes read so far.
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// True while a value is being handed on.
    pub fn giving(&self) -> bool {
        self.giving.load(Ordering::Relaxed)
    }

    /// Every pipe is at its end from the next poll on, whoever holds it open.
    pub fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
    }

    /// The last lines, joined by line feeds.
    pub fn tail(&self) -> String {
        let tail = self.lock();
        tail.0.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }

    /// The last line that is not blank.
    pub fn last_line(&self) -> Option<String> {
        self.lock().0.iter().rev().find(|line| !line.trim().is_empty()).cloned()
    }

    /// Feeds standard input and closes it. That the child does not read it all is its own choice.
    pub async fn feed(&self, mut pipe: Pipe, text: &str) {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let written = pipe.when(Until::Writable, &self.world, |fd| rustix::io::write(fd, rest));
            match or(self.until_cut(), written).await {
                Ok(count) => rest = &rest[count.min(rest.len())..],
                Err(_) => return,
            }
        }
    }

    /// Reads a pipe whose lines are for people only.
    pub async fn log(&self, mut pipe: Pipe, mut log: LogLines<'_>) {
        let (mut block, mut cutter) = (Vec::new(), LineCutter::new(CHILD_LINE_BYTES_MAX));
        while let Some(count) = self.block(&mut pipe, &mut block).await {
            self.keep(&mut cutter, &block[..count], Some(&mut log));
        }
        self.keep_end(&mut cutter, Some(&mut log));
        log.end();
    }

    /// Reads a pipe whose whole text is the value.
    ///
    /// # Errors
    /// Class `too_large`.
    pub async fn text(&self, mut pipe: Pipe, program: &str, max: u64) -> Result<Vec<u8>, Box<Stop>> {
        let (mut block, mut cutter) = (Vec::new(), LineCutter::new(CHILD_LINE_BYTES_MAX));
        let mut text = Vec::new();
        while let Some(count) = self.block(&mut pipe, &mut block).await {
            self.keep(&mut cutter, &block[..count], None);
            if (text.len() + count) as u64 > max {
                return Err(too_large(program, "printed", max));
            }
            text.extend_from_slice(&block[..count]);
        }
        self.keep_end(&mut cutter, None);
        Ok(text)
    }

    /// Reads a pipe whose every line is a value.
    ///
    /// # Errors
    /// Class `too_large`, and what `out` says.
    pub async fn lines(&self, mut pipe: Pipe, program: &str, out: &mut dyn Out) -> Acted {
        let (mut block, mut cutter) =
            (Vec::new(), LineCutter::new(usize::try_from(out.max_value()).unwrap_or(usize::MAX)));
        let mut number = 0u64;
        loop {
            let count = self.block(&mut pipe, &mut block).await;
            let mut lines = Vec::new();
            match count {
                Some(count) => cutter.push(&block[..count], |line| lines.push((line.bytes.to_vec(), line.cut))),
                None => cutter.end(|line| lines.push((line.bytes.to_vec(), line.cut))),
            }
            if cutter.cut {
                // No end of this line can make it fit.
                return Err(too_large(program, "printed a line of", out.max_value()));
            }
            let shown = lines.len().saturating_sub(CHILD_TAIL_LINES);
            for (bytes, cut) in &lines[shown..] {
                self.lock().take(&Line { bytes, cut: *cut }, true, None);
            }
            self.giving.store(true, Ordering::Relaxed);
            for (bytes, cut) in lines {
                number += 1;
                if cut {
                    return Err(too_large(program, "printed a line of", out.max_value()));
                }
                match String::from_utf8(bytes) {
                    Ok(text) => out.give(Value::String(text)).await?,
                    Err(_) => {
                        let message = format!("line {number} that `{program}` printed is not UTF-8");
                        out.bad(Failure::new(Class::Data, message)).await?;
                    }
                }
            }
            self.giving.store(false, Ordering::Relaxed);
            if count.is_none() {
                return Ok(());
            }
        }
    }

    /// Logs every line of a block, and keeps the last ones.
    fn keep(&self, cutter: &mut LineCutter, block: &[u8], mut log: Option<&mut LogLines<'_>>) {
        // Of a flood only the last lines of each block are looked at as text.
        let ends = block.iter().filter(|byte| **byte == b'\n').count();
        let mut place = 0;
        let mut tail = self.lock();
        cutter.push(block, |line| {
            place += 1;
            tail.take(&line, place + CHILD_TAIL_LINES > ends, log.as_deref_mut());
        });
    }

    fn keep_end(&self, cutter: &mut LineCutter, log: Option<&mut LogLines<'_>>) {
        cutter.end(|line| self.lock().take(&line, true, log));
    }

    /// The end, once [`Pumps::cut`] was said. It is looked for at each poll and wakes nobody: who cuts polls the pipes.
    async fn until_cut(&self) -> Result<usize, Errno> {
        poll_fn(|_| if self.cut.load(Ordering::Relaxed) { Poll::Ready(()) } else { Poll::Pending }).await;
        Err(Errno::PIPE)
    }

    /// Reads what is there into `block`, which grows only for a child that has more to say.
    async fn block(&self, pipe: &mut Pipe, block: &mut Vec<u8>) -> Option<usize> {
        let wanted = if pipe.filled { CHILD_BLOCK_BYTES_MAX } else { CHILD_BLOCK_BYTES_MIN };
        if block.len() < wanted {
            block.resize(wanted, 0);
        }
        let read = pipe.when(Until::Readable, &self.world, |fd| rustix::io::read(fd, &mut **block));
        let count = or(self.until_cut(), read).await.ok().filter(|count| *count > 0)?;
        pipe.filled = count == block.len();
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        // A child that floods its pipe must not keep the thread from timers and other items.
        if self.turns.fetch_add(1, Ordering::Relaxed) % CHILD_READS_BEFORE_YIELD == CHILD_READS_BEFORE_YIELD - 1 {
            yield_now().await;
        }
        Some(count)
    }

    fn lock(&self) -> MutexGuard<'_, Tail> {
        // No code that can panic runs under this lock.
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tail {
    fn take(&mut self, line: &Line<'_>, keep: bool, log: Option<&mut LogLines<'_>>) {
        let logged = log.as_ref().is_some_and(|log| log.has_room());
        let shown = if keep || logged { text(line) } else { String::new() };
        match log {
            Some(log) if logged => log.line(&shown),
            Some(log) => log.silent += 1,
            None => {}
        }
        if keep {
            if self.0.len() == CHILD_TAIL_LINES {
                self.0.pop_front();
            }
            self.0.push_back(shown);
        }
    }
}

impl LineCutter {
    /// Of a line at most `max` bytes are kept.
    pub fn new(max: usize) -> LineCutter {
        LineCutter { partial: Vec::new(), max, cut: false }
    }

    /// Takes a block and hands out every line that ends in it.
    pub fn push(&mut self, mut block: &[u8], mut each: impl FnMut(Line<'_>)) {
        while let Some(end) = block.iter().position(|byte| *byte == b'\n') {
            self.take(&block[..end]);
            block = &block[end + 1..];
            self.give(&mut each);
        }
        self.take(block);
    }

    /// Hands out a last line without an end.
    pub fn end(&mut self, each: impl FnOnce(Line<'_>)) {
        if !self.partial.is_empty() || self.cut {
            let mut each = Some(each);
            self.give(&mut |line| each.take().map_or((), |each| each(line)));
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        let room = self.max - self.partial.len();
        self.cut |= bytes.len() > room;
        self.partial.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn give(&mut self, each: &mut impl FnMut(Line<'_>)) {
        let bytes = self.partial.strip_suffix(b"\r").unwrap_or(&self.partial);
        each(Line { bytes, cut: self.cut });
        self.partial.clear();
        self.cut = false;
    }
}

impl<'a> LogLines<'a> {
    /// Lines are logged as of this item.
    pub fn new(cx: &'a ItemContext) -> LogLines<'a> {
        LogLines { cx, lines: 0, bytes: 0, silent: 0 }
    }

    fn has_room(&self) -> bool {
        self.lines < CHILD_LOG_LINES_MAX && self.bytes < CHILD_LOG_BYTES_MAX
    }

    fn line(&mut self, text: &str) {
        self.lines += 1;
        self.bytes += text.len() as u64;
        self.cx.say("lamplighter::child", Level::Info, text);
    }

    fn end(&self) {
        if self.silent > 0 {
            let text = format!("and {} more lines that are not logged", self.silent);
            self.cx.say("lamplighter::child", Level::Info, &text);
        }
    }
}

fn text(line: &Line<'_>) -> String {
    let mut text = one_line(&String::from_utf8_lossy(line.bytes));
    if line.cut {
        text.push('…');
    }
    text
}

fn too_large(program: &str, what: &str, max: u64) -> Box<Stop> {
    Stop::given_up(
        Class::TooLarge,
        format!("`{program}` {what} more than {max} bytes: raise `max_value`, or write large results to a file"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(max: usize, blocks: &[&str]) -> Vec<(String, bool)> {
        let (mut cutter, mut lines) = (LineCutter::new(max), Vec::new());
        let mut each = |line: Line<'_>| lines.push((String::from_utf8_lossy(line.bytes).into_owned(), line.cut));
        for block in blocks {
            cutter.push(block.as_bytes(), &mut each);
        }
        cutter.end(&mut each);
        lines
    }

    #[test]
    fn lines_are_whole_wherever_the_blocks_end() {
        assert_eq!(
            cut(9, &["a\r", "\n\nb", "c\nlast"]),
            [("a".into(), false), (String::new(), false), ("bc".into(), false), ("last".into(), false)]
        );
        assert_eq!(cut(9, &["a\n"]), [("a".into(), false)]);
        assert_eq!(cut(9, &[]), []);
    }

    #[test]
    fn a_line_without_end_is_kept_in_flat_memory() {
        assert_eq!(cut(4, &["abc", "defgh", "ij\nk"]), [("abcd".into(), true), ("k".into(), false)]);
    }
}
