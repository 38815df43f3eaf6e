//! Stdout, stderr and the terminal: lines of text, and below them a picture that is drawn over and over.
//!
//! Everything that the program prints goes through here, so that a line never lands inside the picture, and nothing that
//! happens to a stream makes it panic.

use super::{aside::Queue, exit::Exit};
use lamplighter::{
    report::{Ink, cells},
    world::World,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    fmt::Write as _,
    io::{self, ErrorKind, IsTerminal, Write},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

/// Prints to stdout. A reader that has gone (`| head`) is no error of ours.
///
/// # Errors
/// When stdout cannot be written, which is told on stderr.
pub fn print(text: &str) -> Result<(), Exit> {
    write_out(text).or_else(|error| judge(&error))
}

/// Prints a piece of an answer, of which more may come.
///
/// # Errors
/// When stdout cannot be written, which is told on stderr; [`Exit::Done`] when its reader has gone: nobody wants the rest.
pub fn print_piece(text: &str) -> Result<(), Exit> {
    write_out(text).map_err(|error| judge(&error).err().unwrap_or(Exit::Done))
}

/// Returns when nobody reads stdout any more: what waits for more to print would not find out.
pub async fn reader_goes(world: &World) {
    let stdout = io::stdout();
    loop {
        let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
        let _ = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        if fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) {
            return;
        }
        world.sleep(LOOK_EVERY).await;
    }
}

/// How often a reader of stdout is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Whether stdout failed, which is told on stderr, or its reader has just gone.
pub fn judge(error: &io::Error) -> Result<(), Exit> {
    if error.kind() == ErrorKind::BrokenPipe {
        return Ok(());
    }
    complain(&format!("stdout cannot be written: {error}"));
    Err(Exit::Io)
}

/// Writes to stdout and tells how it went.
pub fn write_out(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Says what is wrong, on stderr.
pub fn complain(text: &str) {
    let ink = ink(&io::stderr());
    say(&format!("{} {text}", ink.paint(lamplighter::report::Tone::Strong, "lamplighter:")));
}

/// Colours for a stream: a terminal, and no `NO_COLOR`.
pub fn ink(stream: &impl IsTerminal) -> Ink {
    let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    Ink { colour: wanted && stream.is_terminal() }
}

/// Columns and rows of the terminal on stderr.
pub fn size() -> (usize, usize) {
    let size = rustix::termios::tcgetwinsize(io::stderr()).ok();
    // A terminal that does not know its size (a serial line) says 0.
    let or = |n: u16, default: usize| if n == 0 { default } else { usize::from(n) };
    size.map_or((80, 24), |size| (or(size.ws_col, 80).max(20), or(size.ws_row, 24).max(4)))
}

/// What stands at the bottom of the terminal now.
struct Screen {
    frame: Vec<String>,
}

static SCREEN: Mutex<Screen> = Mutex::new(Screen { frame: Vec::new() });

static ASIDE: OnceLock<Queue> = OnceLock::new();

/// From now on lines for stderr are written by a thread of their own: nobody waits for their reader. Where none can be
/// started all stays as it is.
pub fn write_aside() {
    if let Ok(queue) = Queue::start() {
        let _ = ASIDE.set(queue);
    }
}

/// Waits for that thread, so long at most, before the program ends.
pub fn settle(patience: Duration) {
    ASIDE.get().into_iter().for_each(|queue| queue.settle(patience));
}

/// Prints lines to stderr, above the picture if there is one.
pub fn say(text: &str) {
    let end = if text.ends_with('\n') { "" } else { "\n" };
    if let Some(queue) = ASIDE.get() {
        return queue.push(&format!("{text}{end}"));
    }
    let screen = screen();
    write_err(&format!("{}{text}{end}{}", screen.erase(), screen.show()));
}

/// Draws a picture over the one before. No line of it may be wider than the terminal.
pub fn draw(frame: Vec<String>) {
    let mut screen = screen();
    let mut text = screen.erase();
    screen.frame = frame;
    text.push_str(&screen.show());
    write_err(&text);
}

/// Takes the picture away.
pub fn clear() {
    let mut screen = screen();
    write_err(&screen.erase());
    screen.frame.clear();
}

fn screen() -> MutexGuard<'static, Screen> {
    SCREEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes to stderr, as it is.
pub fn write_err(text: &str) {
    // Nobody is left to be told when stderr is gone.
    let mut stderr = io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes());
    let _ = stderr.flush();
}

impl Screen {
    /// Goes to where the picture begins, and takes it away.
    fn erase(&self) -> String {
        if self.frame.is_empty() {
            return String::new();
        }
        // A terminal that became narrower has broken long lines into several.
        let width = size().0;
        let rows: usize = self.frame.iter().map(|line| cells(line).div_ceil(width).max(1)).sum();
        format!("\r\x1b[{rows}A\x1b[J")
    }

    fn show(&self) -> String {
        let mut text = String::new();
        for line in &self.frame {
            let _ = writeln!(text, "{line}");
        }
        text
    }
}

/// Where the logger writes.
pub struct LogLines;

impl Write for LogLines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !bytes.is_empty() {
            say(&String::from_utf8_lossy(bytes));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
