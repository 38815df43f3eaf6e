//! Colours of texts for terminals, or none.

/// Paints texts, or leaves them as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ink {
    /// Escape sequences are written: the text goes to a terminal that shows them.
    pub colour: bool,
}

/// What a piece of text says by its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// A name or heading.
    Strong,
    /// Beside the point.
    Faint,
    /// As it should be.
    Good,
    /// Worth a look.
    Warn,
    /// Missing, failed.
    Bad,
    /// Going on now.
    Busy,
}

impl Ink {
    /// `text` in that tone.
    pub fn paint(self, tone: Tone, text: &str) -> String {
        if !self.colour || text.is_empty() {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Strong => "1",
            Tone::Faint => "2",
            Tone::Good => "32",
            Tone::Warn => "33",
            Tone::Bad => "31",
            Tone::Busy => "36",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// How many cells a text takes: its characters without escape sequences.
pub fn cells(text: &str) -> usize {
    let (mut cells, mut escape) = (0, false);
    for c in text.chars() {
        match (escape, c) {
            (true, 'm') => escape = false,
            (true, _) => {}
            (false, '\x1b') => escape = true,
            (false, _) => cells += 1,
        }
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_colour_a_text_stays_as_it_is_and_with_it_takes_no_more_room() {
        assert_eq!(Ink::default().paint(Tone::Bad, "failed"), "failed");
        let painted = Ink { colour: true }.paint(Tone::Bad, "failed");
        assert_eq!(painted, "\x1b[31mfailed\x1b[0m");
        assert_eq!(cells(&painted), 6);
    }
}
