//! The header `Link` (RFC 8288): where the next page is.

use hyper::HeaderMap;

/// The reference of the first link with `rel="next"`.
pub(super) fn next(headers: &HeaderMap) -> Option<String> {
    headers.get_all("link").iter().find_map(|value| next_of(value.to_str().ok()?))
}

fn next_of(mut rest: &str) -> Option<String> {
    loop {
        rest = &rest[rest.find('<')? + 1..];
        let (reference, parameters) = rest.split_once('>')?;
        let (parameters, after) = parameters.split_at(end_of(parameters));
        if parameters.split(';').any(is_next) {
            return Some(reference.to_owned());
        }
        rest = after;
    }
}

/// Where the comma before the next link stands: quoted ones belong to a value.
fn end_of(parameters: &str) -> usize {
    let mut quoted = false;
    for (at, char) in parameters.char_indices() {
        match char {
            '"' => quoted = !quoted,
            ',' if !quoted => return at,
            _ => {}
        }
    }
    parameters.len()
}

fn is_next(parameter: &str) -> bool {
    let Some((name, value)) = parameter.split_once('=') else { return false };
    let mut relations = value.trim().trim_matches('"').split_ascii_whitespace();
    name.trim().eq_ignore_ascii_case("rel") && relations.any(|relation| relation.eq_ignore_ascii_case("next"))
}

#[cfg(test)]
mod tests {
    use super::next_of;

    #[test]
    fn the_next_link_is_found_among_others() {
        for (header, found) in [
            ("</p?page=2>; rel=\"next\"", Some("/p?page=2")),
            (
                "</p?page=1>; rel=prev, <https://h/p?a=1,2;b>; title=\"x, <y>\"; REL=\"last Next\"",
                Some("https://h/p?a=1,2;b"),
            ),
            ("</p>; rel=\"last\"", None),
            ("</p>; rel=\"nextish\"; title=next", None),
            ("</p>", None),
            ("<<<", None),
            ("", None),
        ] {
            assert_eq!(next_of(header).as_deref(), found, "{header}");
        }
    }
}
