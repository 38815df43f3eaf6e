//! What several actions share: rendering, showing what came from outside, reading a file block by block.
//!
//! Every blocking call goes to the blocking pool of the world; nothing here keeps more than one block in memory.

use super::{ItemContext, OutputError, OutputPath, Stop};
use crate::{
    flow::WaitRefused,
    item::{Class, Failure},
    lang::{Checker, Facts, Flavor, Template},
    limits::{READ_BLOCK_BYTES, SCARCE_TRIES, SCARCE_WAIT, SCARCE_WAIT_MAX},
    world::World,
};
use rustix::io::Errno;
use std::{
    fmt::Write as _,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// A file read block by block.
pub(super) struct Blocks {
    world: World,
    file: Option<File>,
    path: PathBuf,
}

impl Blocks {
    /// Opens a regular file.
    ///
    /// # Errors
    /// Class `listing`: it is not there, not readable, or no regular file (a pipe could block for ever).
    pub async fn open(cx: &ItemContext, path: PathBuf) -> Result<Blocks, Box<Stop>> {
        let mut scarcity = Scarcity::default();
        let world = cx.run.world.clone();
        loop {
            let name = path.clone();
            let (message, for_now) = match world.unblock(move || open_regular_or(&name)).await {
                Ok(file) => return Ok(Blocks { world, file: Some(file), path }),
                Err((error, message)) => (message, for_now(&error)),
            };
            if !for_now || !scarcity.wait(cx, &message).await? {
                return Err(Stop::given_up(Class::Listing, message));
            }
        }
    }

    /// The next block; empty at the end.
    ///
    /// # Errors
    /// Class `listing` when the disk fails.
    pub async fn next(&mut self) -> Result<Vec<u8>, Box<Stop>> {
        let Some(mut file) = self.file.take() else { return Ok(Vec::new()) };
        let (file, block) = self
            .world
            .unblock(move || {
                let mut block = vec![0; READ_BLOCK_BYTES];
                let read = read_some(&mut file, &mut block);
                (
                    file,
                    read.map(|count| {
                        block.truncate(count);
                        block
                    }),
                )
            })
            .await;
        let block = block.map_err(|error| {
            let message = format!("cannot read on in `{}`: {}", self.path.display(), cause(&error));
            Stop::given_up(Class::Listing, message)
        })?;
        if !block.is_empty() {
            self.file = Some(file);
        }
        Ok(block)
    }
}

/// Opens a regular file for reading; the message names it.
pub(super) fn open_regular(path: &Path) -> Result<File, String> {
    open_regular_or(path).map_err(|(_, message)| message)
}

/// The same, with what the system said.
fn open_regular_or(path: &Path) -> Result<File, (io::Error, String)> {
    use std::os::unix::fs::OpenOptionsExt;
    let name = path.display();
    // NONBLOCK: opening a pipe that nobody writes to must not hang.
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let named = |error: io::Error| {
        let message = format!("cannot open `{name}`: {}", cause(&error));
        (error, message)
    };
    let file = File::options().read(true).custom_flags(flags).open(path).map_err(named)?;
    if file.metadata().map_err(named)?.is_file() {
        return Ok(file);
    }
    Err((io::ErrorKind::InvalidInput.into(), format!("`{name}` is no regular file")))
}

/// Reads until the block is full or the file ends.
pub(super) fn read_some(file: &mut File, block: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < block.len() {
        match file.read(&mut block[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Renders a text of an action; one that reads a gather's group on a CPU thread (it waits for the store). `what` names
/// the field.
///
/// # Errors
/// Class `data` when it does not render.
pub(super) async fn render(
    cx: &ItemContext,
    template: &Template,
    facts: &Facts,
    what: &str,
) -> Result<String, Box<Stop>> {
    let rendered = if template.uses_group() {
        let (template, facts) = (template.clone(), facts.clone());
        cx.run.world.compute(move || template.render(&facts)).await.ok_or_else(pool_is_lost)?
    } else {
        template.render(facts)
    };
    rendered.map_err(|error| Stop::given_up(Class::Data, format!("{what} does not render: {error}")))
}

/// The same for a dry run.
pub(super) fn preview(template: &Template, facts: &Facts, what: &str) -> Result<String, Failure> {
    let rendered = template.render(facts);
    rendered.map_err(|error| Failure::new(Class::Data, format!("{what} does not render: {error}")))
}

/// Checks the name of an output; one that is plain text is held to the rules of paths at once.
pub(super) fn check_output(at: &str, text: &str, checker: &mut Checker<'_>) -> Option<Template> {
    let template = checker.template_or_literal(at, text, Flavor::Text)?;
    // What is written before the first value can already leave the root.
    let wrong = if template.is_literal() {
        OutputPath::parse(text).err()
    } else {
        text.starts_with('/').then_some(OutputError::Absolute)
    };
    if let Some(error) = wrong {
        let help = "write a path below the output folder, such as \"{{ run.date }}/report.csv\"";
        checker.error(at, format!("this is no usable name of an output: {error}"), Some(help));
        return None;
    }
    if let Some(secret) = template.secrets_used().first() {
        checker.error(
            at,
            format!("the secret `{secret}` would stand in the name of a file"),
            Some("leave it out: names are seen by others"),
        );
        return None;
    }
    Some(template)
}

/// Every thread for computations is lost.
pub(super) fn pool_is_lost() -> Box<Stop> {
    Stop::given_up(
        Class::Stuck,
        "all threads for jq and templates are taken by computations that never ended: mend the filters that time out, \
         then restart",
    )
}

/// How often something was tried that the system had no means for.
#[derive(Default)]
pub(super) struct Scarcity {
    tries: u32,
    refused: u32,
}

impl Scarcity {
    /// Waits, without a work permit, until the system may have what it lacked; false when it was tried often enough. As
    /// long as children of this run hold processes and descriptors, which come back, no try is counted.
    ///
    /// # Errors
    /// When the wait would end past the item's deadline.
    pub async fn wait(&mut self, cx: &ItemContext, what: &str) -> Result<bool, Box<Stop>> {
        self.tries += u32::from(!cx.run.leftovers.hold_something());
        if self.tries >= SCARCE_TRIES {
            return Ok(false);
        }
        if self.refused == 0 {
            cx.say("lamplighter::child", log::Level::Warn, &format!("{what}; it is tried again until there is room"));
        }
        let wait = SCARCE_WAIT.saturating_mul(1 << self.refused.min(16)).min(SCARCE_WAIT_MAX);
        self.refused += 1;
        match cx.slot.wait(wait).await {
            Ok(()) => Ok(true),
            Err(WaitRefused::PastDeadline) => Err(Stop::PastDeadline.into()),
            Err(WaitRefused::Defer(wait)) => Err(Stop::Defer { wait, attempts: cx.slot.attempts() }.into()),
        }
    }
}

/// The system may have what it lacks in a moment.
pub(super) fn for_now(error: &io::Error) -> bool {
    [Errno::AGAIN, Errno::NOMEM, Errno::MFILE, Errno::NFILE]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// What an error of the system says, without its number.
pub(super) fn cause(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error ") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

/// A text from outside on one line: control characters and those that turn the direction of writing are written as
/// escapes, so that it can neither begin a line of its own nor steer a terminal.
pub(super) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => line.push('\t'),
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(line, "\\u{{{:x}}}", u32::from(c));
            }
            c if c.is_control() => line.extend(c.escape_default()),
            c => line.push(c),
        }
    }
    line
}

/// At most `max` bytes of a text, cut at a character.
pub(super) fn cut(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// A value as one word of a command line, for people.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    let word = one_line(word);
    if !word.is_empty() && word.chars().all(plain) { word } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_from_outside_stays_on_its_line_and_steers_no_terminal() {
        assert_eq!(one_line("a\r\nb\u{1b}[2J\u{202e}c\0"), "a\\r\\nb\\u{1b}[2J\\u{202e}c\\u{0}");
        assert_eq!(one_line("Grüße\t1"), "Grüße\t1");
    }

    #[test]
    fn words_of_a_preview_can_be_pasted_into_a_shell() {
        assert_eq!(quoted("a-b/c.d"), "a-b/c.d");
        assert_eq!(quoted("it's $HOME"), r"'it'\''s $HOME'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn a_text_is_cut_at_a_character() {
        assert_eq!(cut("aä", 2), "a");
        assert_eq!(cut("aä", 3), "aä");
    }
}
