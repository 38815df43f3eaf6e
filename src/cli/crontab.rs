//! A crontab, line by line, and the job files that say the same: `new --from-crontab`.
//!
//! Read as cronie and Vixie cron read it. Pure: a text in, texts out; files and messages are those of `new`.

use jiff::tz::TimeZone;
use lamplighter::{schedule::Calendar, units::Span};
use std::collections::{BTreeMap, BTreeSet};

/// How a crontab is read.
pub struct Reading<'a> {
    /// Lines name a user before the command, as in `/etc/crontab` and `/etc/cron.d`.
    pub system: bool,
    /// Who reads it: jobs run as whoever runs `lamplighter`.
    pub user: Option<&'a str>,
    /// The home folder of that user: where cron runs commands.
    pub home: Option<&'a str>,
}

/// A line that cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub struct Wrong {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    pub message: String,
    pub help: String,
}

/// What one line becomes.
#[derive(Debug, PartialEq, Eq)]
pub struct Written {
    /// From 1.
    pub line: usize,
    /// Name of the job: made of the command, and unlike the others of the file.
    pub name: String,
    /// Its file.
    pub text: String,
    /// What it does not say as the crontab did.
    pub remarks: Vec<String>,
    /// Who ran it, where that is somebody else: its file is written switched off.
    pub of: Option<String>,
}

/// Reads a crontab and writes a job for each of its lines. `label` is its name, for people.
///
/// # Errors
/// Every line that cannot be read.
pub fn jobs(text: &str, label: &str, reading: &Reading<'_>) -> Result<Vec<Written>, Vec<Wrong>> {
    let (mut entries, mut wrong) = (Vec::new(), Vec::new());
    let (mut variables, mut comment) = (Vec::new(), Vec::new());
    for (at, line) in text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate() {
        let line = line.trim_end_matches('\r');
        let trimmed = line.trim_start();
        if let Some(said) = trimmed.strip_prefix('#') {
            note(&mut comment, said, reading);
            continue;
        }
        let said = std::mem::take(&mut comment);
        if trimmed.is_empty() {
            continue;
        }
        if let Some((name, value)) = variable(line) {
            match check_variable(&name, &value) {
                Ok(()) => {
                    variables.retain(|(known, _)| *known != name);
                    variables.push((name, value));
                }
                Err((message, help)) => wrong.push(Wrong { line: at + 1, column: 1, message, help }),
            }
            continue;
        }
        match entry(line, reading) {
            Ok(entry) => entries.push((at + 1, line.trim(), entry, variables.clone(), said)),
            Err((byte, message, help)) => {
                let column = line[..byte].chars().count() + 1;
                wrong.push(Wrong { line: at + 1, column, message, help });
            }
        }
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let mut names = BTreeSet::new();
    let written = entries.into_iter().map(|(line, said, entry, variables, comment)| {
        let name = unlike(&names, &name_of(&entry.command));
        names.insert(name.clone());
        write(line, said, label, &name, entry, &variables, &comment, reading)
    });
    Ok(written.collect())
}

/// A line that says when and what.
struct Entry {
    /// As RON.
    schedule: String,
    user: Option<String>,
    command: String,
    stdin: Option<String>,
    remarks: Vec<String>,
}

/// Where in the line (a byte), what is wrong, and what to write.
type Refused = (usize, String, String);

/// Takes a comment in as a part of the description of the line below it.
fn note(comment: &mut Vec<String>, said: &str, reading: &Reading<'_>) {
    let said = said.trim();
    let is_header = said.split_whitespace().take(3).eq(["m", "h", "dom"]);
    // An empty comment ends a paragraph; a line that is switched off describes nothing.
    if said.is_empty() || is_header || entry(said, reading).is_ok() || variable(said).is_some() {
        comment.clear();
    } else {
        comment.push(said.to_owned());
    }
}

/// `NAME = value`, each with or without quotes.
fn variable(line: &str) -> Option<(String, String)> {
    let line = line.trim();
    let (name, rest) = match line.chars().next().filter(|first| matches!(first, '"' | '\'')) {
        Some(quote) => line[1..].split_once(quote).filter(|(name, _)| !name.contains('='))?,
        None => line.split_at(line.find(|c: char| c == '=' || c.is_whitespace())?),
    };
    let value = rest.trim_start().strip_prefix('=')?.trim_start();
    let value = match value.chars().next().filter(|first| matches!(first, '"' | '\'')) {
        Some(quote) => {
            let (value, rest) = value[1..].split_once(quote)?;
            rest.trim().is_empty().then_some(value)?
        }
        None => value,
    };
    (!name.is_empty()).then(|| (name.to_owned(), value.to_owned()))
}

fn check_variable(name: &str, value: &str) -> Result<(), (String, String)> {
    if name == "CRON_TZ" && TimeZone::get(value).is_err() {
        let help = "an IANA name such as Europe/Berlin".to_owned();
        return Err((format!("CRON_TZ: there is no time zone {value:?}"), help));
    }
    if name == "RANDOM_DELAY" && value.parse::<u32>().is_err() {
        return Err((format!("RANDOM_DELAY: {value:?} is no number of minutes"), "such as RANDOM_DELAY=10".to_owned()));
    }
    if name.starts_with("LAMPLIGHTER_") {
        let help = "give it another name: those are set by the run".to_owned();
        return Err((format!("the variable {name} cannot be handed to a command"), help));
    }
    Ok(())
}

fn entry(line: &str, reading: &Reading<'_>) -> Result<Entry, Refused> {
    let mut rest = Rest { line, at: line.len() - line.trim_start().len() };
    if line[rest.at..].starts_with('-') {
        // cronie: this line is not to be logged.
        rest.at += 1;
    }
    let begin = rest.at;
    let mut remarks = Vec::new();
    let schedule = if line[begin..].starts_with('@') {
        let word = rest.word().map_or("", |(_, word)| word);
        let every = (word == "@every").then(|| rest.word()).flatten();
        match (word, every) {
            ("@reboot", _) => "OnBoot(\"1s\")".to_owned(),
            (_, Some((at, span))) => {
                span.parse::<Span>().map_err(|why| (at, why.to_string(), "as in `@every 15m`".to_owned()))?;
                format!("Every({span:?})")
            }
            _ => match Calendar::cron(word, TimeZone::UTC, 0) {
                Ok(_) => format!("Cron({word:?})"),
                Err(_) => {
                    remarks.push(format!("{word} is not known here: it is due only when somebody runs it"));
                    "Manual".to_owned()
                }
            },
        }
    } else {
        fields(&mut rest, &mut remarks)?
    };
    let user = match reading.system {
        true => {
            let (_, user) = rest.word().ok_or_else(|| missing(line, "user, and the command"))?;
            Some(user.to_owned())
        }
        false => None,
    };
    let command = line[rest.at..].trim_start();
    if command.trim().is_empty() {
        return Err(missing(line, "command"));
    }
    if !reading.system && command.starts_with("root ") {
        let help = "a system crontab has a user before the command: say `--system`".to_owned();
        return Err((line.len() - command.len(), "the command is `root`".to_owned(), help));
    }
    let (command, stdin) = undo_percent(command);
    if command.trim().is_empty() {
        return Err(missing(line, "command"));
    }
    Ok(Entry { schedule, user, command: command.trim_end().to_owned(), stdin, remarks })
}

fn missing(line: &str, what: &str) -> Refused {
    let help = "a line is `minute hour day-of-month month day-of-week command`".to_owned();
    (line.trim_end().len(), format!("the line ends before its {what}"), help)
}

/// What of a line is not read yet.
struct Rest<'a> {
    line: &'a str,
    at: usize,
}

impl<'a> Rest<'a> {
    /// The next word, and where it begins.
    fn word(&mut self) -> Option<(usize, &'a str)> {
        let rest = &self.line[self.at..];
        let begin = self.at + rest.len() - rest.trim_start().len();
        let word = self.line[begin..].split_whitespace().next()?;
        self.at = begin + word.len();
        Some((begin, word))
    }
}

/// The five fields as a schedule that means the same here, in RON.
fn fields(rest: &mut Rest<'_>, remarks: &mut Vec<String>) -> Result<String, Refused> {
    const BOUNDS: [(&str, &str); 5] = [("0", "59"), ("0", "23"), ("1", "31"), ("1", "12"), ("0", "6")];
    let (mut written, mut places) = (Vec::<String>::new(), Vec::new());
    for (low, high) in BOUNDS {
        let (at, field) = rest.word().ok_or_else(|| missing(rest.line, "five fields"))?;
        let random = |member: &str| match member.split_once('~') {
            Some((from, to)) => {
                let or = |text: &str, default: &str| if text.is_empty() { default.to_owned() } else { text.to_owned() };
                format!("H({}-{})", or(from, low), or(to, high))
            }
            None => member.to_owned(),
        };
        let as_hash = field.split(',').map(random).collect::<Vec<_>>().join(",");
        if as_hash != field {
            remarks.push(format!(
                "`{field}`, a number that cron draws anew at each start, is `{as_hash}`: always the same for this machine \
                 and job"
            ));
        }
        places.push((at, written.iter().map(|field| field.len() + 1).sum::<usize>()));
        written.push(as_hash);
    }
    // Where one of the day fields begins with `*`, a step too, cron wants both to match; here only a bare `*` is no restriction.
    let stepped = |field: &str| field.starts_with("*/") || field.starts_with("*,");
    let both = (stepped(&written[2]) && written[4] != "*") || (stepped(&written[4]) && written[2] != "*");
    if both {
        written[4].insert(0, '+');
    }
    let expression = written.join(" ");
    match Calendar::cron(&expression, TimeZone::UTC, 0).map_err(|mistake| (mistake.within.clone(), mistake)) {
        Ok(_) => Ok(format!("Cron({expression:?})")),
        // Each field is good and they never meet: so are lines switched off.
        Err((None, mistake)) => {
            remarks.push(format!("{}; it is due only when somebody runs it", mistake.message));
            Ok("Manual".to_owned())
        }
        Err((Some(within), mistake)) => {
            let within = within.start;
            let (at, begin) = places.iter().rev().find(|(_, begin)| *begin <= within).copied().unwrap_or(places[0]);
            let byte = (at + within.saturating_sub(begin)).min(rest.line.len());
            let byte = (0..=byte).rev().find(|byte| rest.line.is_char_boundary(*byte)).unwrap_or(0);
            Err((byte, mistake.message, mistake.help))
        }
    }
}

/// The command, and what it reads: the first `%` without a backslash begins it, further ones end its lines.
fn undo_percent(text: &str) -> (String, Option<String>) {
    let mut command = String::new();
    let mut chars = text.chars();
    let mut is_escaped = false;
    let mut input = None;
    while let Some(c) = chars.next() {
        match c {
            '%' if is_escaped => {
                command.pop();
                command.push('%');
            }
            '%' => {
                input = Some(chars.as_str());
                break;
            }
            c => command.push(c),
        }
        is_escaped = c == '\\' && !is_escaped;
    }
    let Some(input) = input.filter(|input| !input.is_empty()) else { return (command, None) };
    let mut stdin = String::new();
    let mut is_escaped = false;
    for c in input.chars() {
        match c {
            '%' if is_escaped => {
                stdin.pop();
                stdin.push('%');
            }
            '%' => stdin.push('\n'),
            c => stdin.push(c),
        }
        is_escaped = c == '\\';
    }
    if !stdin.ends_with('\n') {
        stdin.push('\n');
    }
    (command, Some(stdin))
}

/// Programs that only start another one, and words before a command: the name is that of what they start.
const STARTERS: [&str; 22] = [
    "sudo", "nice", "ionice", "nohup", "time", "timeout", "flock", "chronic", "env", "exec", "sh", "bash", "dash",
    "python", "python3", "perl", "ruby", "php", "node", "cd", "test", "[",
];

/// Longest name of a job that is made of a command.
const NAME_BYTES: usize = 40;

/// A name of a job, made of what a command starts.
fn name_of(command: &str) -> String {
    let stem = |word: &str| {
        let base =
            word.trim_matches(['"', '\'', '(', ')', ';']).trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let base =
            [".sh", ".py", ".pl", ".rb", ".php", ".js"].iter().find_map(|end| base.strip_suffix(end)).unwrap_or(base);
        let usable = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        let parts = base.chars().map(usable).collect::<String>();
        let parts: Vec<&str> = parts.split('-').filter(|part| !part.is_empty()).collect();
        let mut name = parts.join("-");
        name.truncate(NAME_BYTES);
        name.trim_end_matches('-').to_owned()
    };
    // `cd x && y`, `test -x x || y`: what comes last is what it is about; what starts something names nothing.
    let pieces: Vec<&str> =
        command.split("&&").flat_map(|piece| piece.split("||")).flat_map(|piece| piece.split(';')).collect();
    let mut fallback = None;
    for piece in pieces {
        let mut words =
            piece.split_whitespace().filter(|word| !word.contains('=') && !word.starts_with(['-', '>', '<', '{']));
        let Some(first) = words.next() else { continue };
        let first_stem = stem(first);
        let is_starter = STARTERS.contains(&first.rsplit('/').next().unwrap_or(first));
        if is_starter {
            // Numbers and locks stand between it and what it starts.
            let started =
                words.find(|word| !STARTERS.contains(word) && word.parse::<f64>().is_err() && !word.ends_with(".lock"));
            let named = started.map(stem).filter(|name| !name.is_empty());
            let is_command = !matches!(first, "cd" | "test" | "[");
            match named {
                Some(name) if is_command => return name,
                named => fallback = fallback.or(named),
            }
            continue;
        }
        if first_stem == "run-parts" {
            let folder = words.find(|word| word.starts_with('/')).map(stem).filter(|name| !name.is_empty());
            return folder.map_or(first_stem, |folder| format!("run-parts-{folder}"));
        }
        if !first_stem.is_empty() {
            return first_stem;
        }
    }
    fallback.unwrap_or_else(|| "from-crontab".to_owned())
}

/// `name`, or with the first number from 2 that no other one has.
fn unlike(names: &BTreeSet<String>, name: &str) -> String {
    // That one is the configuration.
    let name = if name == "lamplighter" { "lamplighter-job" } else { name };
    if !names.contains(name) {
        return name.to_owned();
    }
    (2u32..).map(|number| format!("{name}-{number}")).find(|name| !names.contains(name)).unwrap_or_default()
}

#[expect(clippy::too_many_arguments, reason = "all that is known of one line")]
fn write(
    line: usize,
    said: &str,
    label: &str,
    name: &str,
    entry: Entry,
    variables: &[(String, String)],
    comment: &[String],
    reading: &Reading<'_>,
) -> Written {
    let mut remarks = entry.remarks;
    let of = |name: &str| variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let other = entry.user.filter(|user| Some(user.as_str()) != reading.user);
    if let Some(user) = &other {
        remarks.push(format!(
            "cron ran it as {user}, and a job runs as whoever runs lamplighter: it is written switched off (.ron.off)"
        ));
    }
    let mut env: BTreeMap<&str, &str> = BTreeMap::new();
    for (variable, value) in variables {
        match variable.as_str() {
            "SHELL" | "MAILTO" | "CRON_TZ" | "RANDOM_DELAY" => {}
            "MAILFROM" | "CONTENT_TYPE" | "CONTENT_TRANSFER_ENCODING" => {
                remarks.push(format!("{variable}={value} is left out: say it to the mail program"));
            }
            variable => drop(env.insert(variable, value)),
        }
    }
    if of("TZ").is_some() && of("CRON_TZ").is_none() {
        remarks.push("TZ is the zone of the command only, as with cron: for the schedule write `timezone`".to_owned());
    }
    if is_left_behind(&entry.command) {
        remarks.push("what it leaves running in the background is ended with its run".to_owned());
    }
    let home = of("HOME").or(reading.home).filter(|_| other.is_none());
    let mut text = format!("// From {label}:{line}:\n//     {said}\n");
    for remark in &remarks {
        text.push_str(&format!("// Unlike there: {remark}.\n"));
    }
    text.push_str("Job(\n");
    if !comment.is_empty() {
        text.push_str(&format!("    description: {},\n", quoted(&comment.join(" "))));
    }
    text.push_str(&format!("    schedule: {},\n", entry.schedule));
    if let Some(zone) = of("CRON_TZ") {
        text.push_str(&format!("    timezone: {},\n", quoted(zone)));
    }
    let delay = of("RANDOM_DELAY").map(|minutes| minutes.trim_start_matches('0'));
    if let Some(minutes) = delay.filter(|minutes| !minutes.is_empty()) {
        text.push_str(&format!("    splay: \"{minutes}m\",\n"));
    }
    text.push_str("    // cron had none: say how long a run may take\n    deadline: \"24h\",\n");
    let shell = of("SHELL").filter(|shell| !matches!(*shell, "/bin/sh" | "/usr/bin/sh" | "sh"));
    let takes_templates = literal(&entry.command) != entry.command;
    let mut fields = vec![match shell {
        None if !takes_templates => {
            let plain = if is_plain(&entry.command) { "" } else { "set +eu; " };
            format!("sh: {}", quoted(&format!("{plain}{}", entry.command)))
        }
        shell => {
            let shell = quoted(&literal(shell.unwrap_or("/bin/sh")));
            format!("argv: [{shell}, \"-c\", {}]", quoted(&literal(&entry.command)))
        }
    }];
    if !env.is_empty() {
        let pairs = env.iter().map(|(name, value)| format!("{}: {}", quoted(name), quoted(&literal(value))));
        fields.push(format!("env: {{{}}}", pairs.collect::<Vec<_>>().join(", ")));
    }
    fields.extend(home.map(|home| format!("cwd: {}", quoted(&literal(home)))));
    fields.extend(entry.stdin.as_ref().map(|stdin| format!("stdin: {}", quoted(&literal(stdin)))));
    match fields.as_slice() {
        [command] => text.push_str(&format!("    run: [Exec({command})],\n")),
        fields => {
            let fields: String = fields.iter().map(|field| format!("            {field},\n")).collect();
            text.push_str(&format!("    run: [\n        Exec(\n{fields}        ),\n    ],\n"));
        }
    }
    match of("MAILTO") {
        None => {}
        Some("") => text.push_str("    // MAILTO=\"\": nobody is told\n    on_finish: [],\n"),
        Some(to) => {
            let to: Vec<String> = to.split(',').map(|address| quoted(&literal(address.trim()))).collect();
            text.push_str(&format!(
                "    // MAILTO: cron mailed all that was printed; this mails when a run has failed\n    on_finish: [\n        \
                 Notify(run: [Exec(argv: [\"mail\", \"-s\", \"{{{{ run.summary }}}}\", {}], stdin: \"{{{{ run.report }}}}\")]),\n    ],\n",
                to.join(", ")
            ));
        }
    }
    text.push_str(")\n");
    Written { line, name: name.to_owned(), text, remarks, of: other }
}

/// `-eu` changes nothing: no second command behind a failed one, no variable that may be unset.
fn is_plain(command: &str) -> bool {
    !command.contains([';', '$', '`', '(', '{'])
        && !command.replace("&&", "").replace(">&", "").replace("&>", "").contains('&')
}

/// A process is left in the background on purpose.
fn is_left_behind(command: &str) -> bool {
    let ends = command.ends_with('&') && !command.ends_with("&&");
    ends || command.split_whitespace().any(|word| matches!(word, "setsid" | "nohup" | "disown"))
}

/// A text as a template that gives it.
fn literal(text: &str) -> String {
    let mut template = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match chars.peek() {
            Some(next @ ('{' | '%' | '#')) if c == '{' => {
                template.push_str(&format!("{{{{ '{{{next}' }}}}"));
                chars.next();
            }
            _ => template.push(c),
        }
    }
    template
}

/// A text in RON: raw where it would need backslashes.
fn quoted(text: &str) -> String {
    if !text.contains(['"', '\\', '\n', '\t']) {
        return format!("\"{text}\"");
    }
    let hashes = (1..).map(|n| "#".repeat(n)).find(|hashes| !text.contains(&format!("\"{hashes}"))).unwrap_or_default();
    if text.contains(['"', '\\']) {
        return format!("r{hashes}\"{text}\"{hashes}");
    }
    format!("\"{}\"", text.replace('\n', "\\n").replace('\t', "\\t"))
}
