//! "Did you mean …": the known name that is nearest to what was written. Called while explaining; also for names that
//! the check of a job knows (stages, services).

/// Longer names are not compared: nobody misspells a field that way.
const COMPARED_BYTES_MAX: usize = 64;

/// The candidate that `written` most probably means: the same but for capitals, `-` and `_`, or at most two typing errors
/// away (one in a name of up to four letters), of equally near ones the first; else the only one that begins so.
pub fn closest<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if written.is_empty() || written.len() > COMPARED_BYTES_MAX {
        return None;
    }
    let plain = |name: &str| name.replace(['-', '_', ' '], "").to_lowercase();
    let most = if written.chars().count() <= 4 { 1 } else { 2 };
    let written = plain(written);
    let (mut best, mut longer) = (None, Vec::new());
    for candidate in candidates {
        if written.len() >= 3 && plain(candidate).starts_with(&written) {
            longer.push(candidate);
        }
        let distance = strsim::osa_distance(&written, &plain(candidate));
        if distance <= most && distance < candidate.chars().count() && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    // A name that was cut short: `Fail` for `Failed`, `grace` for `grace_period`.
    let whole = if let [only] = longer[..] { Some(only) } else { None };
    best.map(|(_, candidate)| candidate).or(whole)
}

/// "`a`, `b` and `c`", at most twelve of them.
pub(super) fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    let shown: Vec<String> = names.iter().take(12).map(|name| format!("`{name}`")).collect();
    match &shown[..] {
        [] => "none".to_owned(),
        [only] => only.clone(),
        _ if names.len() > shown.len() => format!("{} and {} more", shown.join(", "), names.len() - shown.len()),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_suggested() {
        let fields = ["name", "timeout", "to", "max_attempts", "from", "tolerate"];
        for (written, meant) in [
            ("timout", Some("timeout")),
            ("Name", Some("name")),
            ("max-attempts", Some("max_attempts")),
            ("maxAttempts", Some("max_attempts")),
            ("form", Some("from")),
            ("nmae", Some("name")),
            ("tolera", Some("tolerate")),
            ("max", Some("max_attempts")),
            ("colour", None),
            ("db", None),
            ("", None),
        ] {
            assert_eq!(closest(written, fields), meant, "{written}");
        }
        assert_eq!(closest(&"x".repeat(1 << 20), fields), None);
    }

    #[test]
    fn names_are_listed_as_people_say_them() {
        assert_eq!(list([]), "none");
        assert_eq!(list(["a"]), "`a`");
        assert_eq!(list(["a", "b", "c"]), "`a`, `b` and `c`");
        assert!(list(["a"; 20]).ends_with("`a` and 8 more"));
    }
}
