//! The few things of a URL that calls need: where a service stands, and what may follow it.
//!
//! Used by the checks of services and of `Http`, and by redirects and pages. A text from data can never change scheme,
//! host or port here: an [`Origin`] is compared, never replaced.

use crate::limits::URL_BYTES_MAX;
use std::fmt;

/// Scheme, host and port: the only place that a service ever talks to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// `https`, else `http`.
    pub tls: bool,
    /// Lower case; an IPv6 address without its brackets.
    pub host: String,
    /// As written, else 80 or 443.
    pub port: u16,
}

impl Origin {
    /// What stands in the `Host` header.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == if self.tls { 443 } else { 80 } { host } else { format!("{host}:{}", self.port) }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

/// Why a program without the feature `tls` takes no `https` address.
pub(super) const WITHOUT_TLS: &str = "this program was built without TLS (the feature `tls`): it can call http:// only";

/// Splits an absolute URL into its origin and what follows it: a path with its query, `/` at least, without a fragment.
///
/// # Errors
/// A sentence that says what is wrong; it does not repeat the URL.
pub fn split(url: &str) -> Result<(Origin, String), String> {
    let lower = url.get(..8.min(url.len())).unwrap_or_default().to_ascii_lowercase();
    let (tls, rest) = if lower.starts_with("https://") {
        if !cfg!(feature = "tls") {
            return Err(WITHOUT_TLS.to_owned());
        }
        (true, &url[8..])
    } else if lower.starts_with("http://") {
        (false, &url[7..])
    } else {
        return Err("it must begin with http:// or https://".to_owned());
    };
    let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    if authority.contains('@') {
        return Err("a user or password does not belong into a URL: write them in auth".to_owned());
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(inner) => {
            let (host, port) = inner.split_once(']').ok_or("the bracket of its host is not closed")?;
            if host.parse::<std::net::Ipv6Addr>().is_err() {
                return Err("the host in brackets is no IPv6 address".to_owned());
            }
            (host, port)
        }
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if host.is_empty() || host.len() > 253 || !host.chars().all(named) {
        return Err("its host is missing or has characters that no host has".to_owned());
    }
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => {
            if tls {
                443
            } else {
                80
            }
        }
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
            digits.parse().ok().filter(|port| *port != 0).ok_or("its port must be 1 to 65535")?
        }
        _ => return Err("its port must be 1 to 65535".to_owned()),
    };
    let origin = Origin { tls, host: host.to_ascii_lowercase(), port };
    let target = rest.split('#').next().unwrap_or_default();
    let target = if target.starts_with('?') || target.is_empty() { format!("/{target}") } else { target.to_owned() };
    usable(&target)?;
    Ok((origin, target))
}

/// Refuses a path with its query that could not stand in a request as it is, or that climbs (`..`).
///
/// # Errors
/// A sentence that says what is wrong.
pub fn usable(target: &str) -> Result<(), String> {
    if !target.starts_with('/') {
        return Err("the path must begin with /".to_owned());
    }
    if let Some(bad) = target
        .chars()
        .find(|c| !c.is_ascii_graphic() || matches!(c, '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '|' | '}' | '#'))
    {
        return Err(format!("the path has the character {bad:?}: it must be percent-encoded"));
    }
    if target.len() > URL_BYTES_MAX {
        return Err(format!("the path with its query has {} bytes, more than {URL_BYTES_MAX}", target.len()));
    }
    let path = target.split('?').next().unwrap_or_default();
    let dots = |part: &str| matches!(part.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..");
    if path.split('/').any(dots) {
        return Err("the path has a part `.` or `..`: it would lead somewhere else".to_owned());
    }
    Ok(())
}

/// What a reference in an answer (a redirect, a link to the next page) means, seen from the request's path: the path
/// with query to ask next, when it stays within `origin`.
///
/// # Errors
/// A sentence when it leaves the origin or is no URL.
pub fn resolve(origin: &Origin, from: &str, reference: &str) -> Result<String, String> {
    let reference = reference.split('#').next().unwrap_or_default().trim();
    let colon = reference.find(':').filter(|at| !reference[..*at].contains(['/', '?']));
    let target = if colon.is_some() || reference.starts_with("//") {
        let whole = match colon {
            Some(_) => reference.to_owned(),
            None => format!("{}:{reference}", if origin.tls { "https" } else { "http" }),
        };
        let (other, target) = split(&whole)?;
        if other != *origin {
            return Err("it leads to another scheme, host or port".to_owned());
        }
        target
    } else if reference.starts_with('/') {
        climb(reference)
    } else {
        let path = from.split('?').next().unwrap_or("/");
        match reference.chars().next() {
            None => from.to_owned(),
            Some('?') => format!("{path}{reference}"),
            Some(_) => climb(&format!("{}/{reference}", &path[..path.rfind('/').unwrap_or(0)])),
        }
    };
    usable(&target)?;
    Ok(target)
}

/// Takes the parts `.` and `..` out of a path, as RFC 3986 says for references.
fn climb(target: &str) -> String {
    let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    let mut parts: Vec<&str> = Vec::new();
    let mut rest = path.split('/').skip(1).peekable();
    while let Some(part) = rest.next() {
        let last = rest.peek().is_none();
        match part {
            "." | ".." => {
                if part == ".." {
                    parts.pop();
                }
                if last {
                    parts.push("");
                }
            }
            part => parts.push(part),
        }
    }
    format!("/{}{query}", parts.join("/"))
}

/// Adds `name=value` to the query of `target`, both percent-encoded.
pub fn add_query(target: &mut String, name: &str, value: &str) {
    target.push(if target.contains('?') { '&' } else { '?' });
    encode_into(target, name);
    target.push('=');
    encode_into(target, value);
}

/// Percent-encodes all but the unreserved characters of RFC 3986.
pub fn encode_into(out: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte as char);
        } else {
            const HEX: &[u8; 16] = b"0123456789ABCDEF";
            out.push('%');
            out.push(HEX[usize::from(byte >> 4)] as char);
            out.push(HEX[usize::from(byte & 15)] as char);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absolute_url_is_split_at_its_origin() {
        let cases = [
            ("http://127.0.0.1:8787", "http://127.0.0.1:8787", "/"),
            ("HTTPS://Vendor.Example/v1/", "https://vendor.example", "/v1/"),
            ("https://h:443?x=1#frag", "https://h", "/?x=1"),
            ("http://[::1]:80/a", "http://[::1]", "/a"),
        ];
        for (url, origin, target) in cases {
            let (found, rest) = split(url).expect(url);
            assert_eq!((found.to_string().as_str(), rest.as_str()), (origin, target), "{url}");
        }
    }

    #[test]
    fn what_could_lead_elsewhere_is_refused() {
        for url in [
            "ftp://h",
            "//h/x",
            "h/x",
            "http://",
            "http:///x",
            "http://u:p@h/",
            "http://h:0/",
            "http://h:99999/",
            "http://h:+80/",
            "http://h h/",
            "http://h\\@evil/",
            "http://[::1/",
            "http://[zz]/",
            "http://h/a b",
            "http://h/a/../b",
            "http://h/%2E%2e/b",
            "http://h/a\r\nX: 1",
            "http://hä/",
        ] {
            assert!(split(url).is_err(), "{url}");
        }
    }

    #[test]
    fn a_reference_stays_within_the_origin_or_is_refused() {
        let (origin, _) = split("http://h:81/").expect("splits");
        let at = |reference| resolve(&origin, "/a/b/c?x=1", reference);
        assert_eq!(at("/z?q"), Ok("/z?q".to_owned()));
        assert_eq!(at("d"), Ok("/a/b/d".to_owned()));
        assert_eq!(at("../d?x=a:b"), Ok("/a/d?x=a:b".to_owned()));
        assert_eq!(at("../../../../d/."), Ok("/d/".to_owned()));
        assert_eq!(at("?y=2"), Ok("/a/b/c?y=2".to_owned()));
        assert_eq!(at("http://h:81/w#f"), Ok("/w".to_owned()));
        assert_eq!(at("//h:81/w"), Ok("/w".to_owned()));
        for bad in ["http://h/w", "https://h:81/w", "//evil/", "http://h:81@evil/", "javascript:x", "/a b", "\\\\evil"]
        {
            assert!(at(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn query_values_are_encoded_whole() {
        let mut target = "/p".to_owned();
        add_query(&mut target, "a b", "1&c=2#ä/+");
        add_query(&mut target, "n", "~-._");
        assert_eq!(target, "/p?a%20b=1%26c%3D2%23%C3%A4%2F%2B&n=~-._");
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_odd_and_what_resolves_can_be_sent(text in "(https?:)?/?/?[a-z@:.%/?#\\[\\]\\\\ \u{e4}]{0,12}|\\PC{0,20}") {
            let (origin, _) = split("http://h:81/").expect("splits");
            let _ = split(&text);
            if let Ok(target) = resolve(&origin, "/a/b?c", &text) {
                proptest::prop_assert!(target.starts_with('/') && target.parse::<hyper::Uri>().is_ok(), "{target}");
            }
        }

        #[test]
        fn an_origin_reads_its_own_text(text in "https?://[a-z.]{1,8}(:[0-9]{1,4})?/[a-z/?=]{0,9}") {
            if let Ok((origin, target)) = split(&text) {
                proptest::prop_assert_eq!(split(&format!("{origin}{target}")), Ok((origin, target)));
            }
        }
    }
}
