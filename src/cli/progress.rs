//! The live picture of a run on a terminal: a line for each stage, drawn over and over.

use lamplighter::{
    job::Job,
    report::count,
    run::{Progress, StageProgress},
};
use std::{fmt::Write as _, io::Write as _, time::Duration};

/// Cells of a bar.
const BAR: usize = 24;

/// What stands on the terminal now.
pub struct Picture {
    lines: usize,
    colour: bool,
}

impl Picture {
    pub fn new() -> Picture {
        Picture { lines: 0, colour: super::colour() }
    }

    /// Draws the run over the picture before.
    pub fn draw(&mut self, job: &Job, progress: &Progress) {
        let width = terminal_width();
        let name_width = progress.stages.iter().map(|stage| stage.name.chars().count()).max().unwrap_or(0);
        let mut lines = vec![self.title(job, progress)];
        lines.extend(progress.stages.iter().map(|stage| self.stage(stage, name_width)));
        let mut text = self.up();
        for line in &lines {
            let _ = writeln!(text, "{}\x1b[K", cut(line, width));
        }
        self.lines = lines.len();
        let mut stderr = std::io::stderr().lock();
        let _ = stderr.write_all(text.as_bytes());
        let _ = stderr.flush();
    }

    /// Takes the picture away.
    pub fn clear(&mut self) {
        let mut stderr = std::io::stderr().lock();
        let _ = write!(stderr, "{}\x1b[J", self.up());
        let _ = stderr.flush();
        self.lines = 0;
    }

    fn up(&self) -> String {
        if self.lines == 0 { String::new() } else { format!("\r\x1b[{}A", self.lines) }
    }

    fn title(&self, job: &Job, progress: &Progress) -> String {
        let mut title = format!("{}  {}", self.paint("1", &job.name), clock(progress.elapsed));
        if let Some(left) = progress.left {
            let _ = write!(title, "  {}", self.paint("2", &format!("{} to the deadline", clock(left))));
        }
        if progress.ending {
            let _ = write!(title, "  {}", self.paint("33", "ending"));
        }
        title
    }

    fn stage(&self, stage: &StageProgress, name_width: usize) -> String {
        let counts = &stage.counts;
        let done = counts.settled();
        let name = format!("  {:<name_width$} ", stage.name);
        if !stage.began && done == 0 {
            return self.paint("2", &format!("{name} waits"));
        }
        let total = if stage.total_known { count(counts.items) } else { format!("{}+", count(counts.items)) };
        let mut line = format!("{name} {} {:>13}", self.bar(stage, done), format!("{}/{total}", count(done)));
        if stage.ended {
            line.push_str(&self.paint("32", "  done"));
        } else {
            if stage.working > 0 {
                let _ = write!(line, "  {} in flight", stage.working);
            }
            if stage.waiting > 0 {
                let _ = write!(line, "  {} waiting", count(stage.waiting));
            }
            if stage.closed {
                line.push_str(&self.paint("33", "  closed"));
            }
        }
        if counts.missing() > 0 {
            line.push_str(&self.paint("31", &format!("  {} missing", count(counts.missing()))));
        }
        let seconds = stage.elapsed.as_secs_f64();
        if !stage.ended && seconds >= 1.0 && done > 0 {
            let rate = done as f64 / seconds;
            let _ = write!(line, "  {rate:.0}/s");
            if stage.total_known && counts.items > done {
                let left = Duration::from_secs_f64((counts.items - done) as f64 / rate);
                let _ = write!(line, "  {} left", clock(left));
            }
        }
        line
    }

    fn bar(&self, stage: &StageProgress, done: u64) -> String {
        let full = if stage.ended {
            BAR
        } else if stage.counts.items == 0 || stage.source {
            0
        } else {
            (done as usize * BAR / stage.counts.items as usize).min(BAR)
        };
        let colour = if stage.ended { "32" } else { "36" };
        format!("{}{}", self.paint(colour, &"━".repeat(full)), self.paint("2", &"─".repeat(BAR - full)))
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Hours, minutes, seconds: `1:02:03`, `2:03`.
fn clock(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

fn terminal_width() -> usize {
    rustix::termios::tcgetwinsize(std::io::stderr()).map_or(80, |size| usize::from(size.ws_col)).max(20)
}

/// Cuts a line at the terminal's width; escape sequences take no place.
fn cut(line: &str, width: usize) -> String {
    let mut cut = String::new();
    let (mut used, mut escape) = (0, false);
    for c in line.chars() {
        if escape {
            escape = c != 'm';
        } else if c == '\x1b' {
            escape = true;
        } else if used + 1 >= width {
            cut.push_str("\x1b[0m");
            break;
        } else {
            used += 1;
        }
        cut.push(c);
    }
    cut
}
