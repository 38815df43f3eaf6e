//! The check of `Http`.

use super::{
    BodyPlan, Http, PagesPlan, Parts, Through,
    judge::Judge,
    quick::Expr,
    spec::{BodySpec, HttpSpec, PagesSpec},
};
use crate::{
    action::{Checked, Gives, Place, files},
    lang::{Checker, Flavor, Template},
    limits::PAGES_MAX_DEFAULT,
    problem::UniqueMap,
    service::{ServicePlan, check_headers, url},
    units::Span,
};
use hyper::Method;
use std::sync::{Arc, Mutex};

/// See [`crate::action::check`].
pub(in crate::action) fn check(
    spec: &HttpSpec,
    path: &str,
    place: &Place<'_>,
    checker: &mut Checker<'_>,
) -> Option<Checked> {
    let at = |field: &str| format!("{path}.{field}");
    let Some((method, field, text)) = spec.method() else {
        let help = "write one of `get`, `post`, `put`, `patch`, `delete` and `head`, as in `get: \"/v1/patients\"`";
        checker.error(path, "an Http has exactly one method with its path", Some(help));
        return None;
    };
    let target = check_target(spec, &at("via"), &at(field), text, place, checker);
    let query = spec.query.as_ref().map_or(Some(Vec::new()), |map| texts(map, &at("query"), checker));
    let headers = spec.headers.as_ref().map_or(Some(Vec::new()), |map| check_headers(map, &at("headers"), checker));
    let body = check_body(spec, &method, &at("body"), checker);
    let mut ok = true;
    if spec.timeout.is_some_and(Span::is_zero) {
        ok = false;
        checker.error(&at("timeout"), "`timeout` must be longer than nothing", Some("write `timeout: \"10s\"`"));
    }
    // Filters see the answer that they judge.
    let before = std::mem::replace(&mut checker.scope_mut().response, true);
    let mut filter = |field: &str, text: &Option<String>| match text {
        None => Some(None),
        Some(text) => checker.filter(&at(field), text).map(|filter| Some(Expr::new(filter))),
    };
    let (empty_if, fail_if, retry_if) =
        (filter("empty_if", &spec.empty_if), filter("fail_if", &spec.fail_if), filter("retry_if", &spec.retry_if));
    let pages = check_pages(spec, &method, &at("pages"), &mut |field, text| {
        checker.filter(&format!("{}.{field}", at("pages")), text).map(Expr::new)
    });
    checker.scope_mut().response = before;
    if let Err(Some((field, message, help))) = &pages {
        checker.error(&at(field), *message, Some(help));
    }
    let to = match &spec.to {
        None => Some(None),
        Some(to) => files::check_output(&at("to"), to, checker).map(Some),
    };
    if spec.to.is_some() && (spec.pages.is_some() || method == Method::HEAD) {
        checker.error(&at("to"), "only one whole answer can be saved", Some("leave `pages` out, or use `get`"));
        ok = false;
    }
    if spec.max_pages.is_some() && (spec.pages.is_none() || spec.max_pages == Some(0)) {
        checker.error(
            &at("max_pages"),
            "`max_pages` is at least 1 and stands beside `pages`",
            Some("write `max_pages: 50` beside `pages: ..`, or leave it out"),
        );
        ok = false;
    }
    if spec.into.as_ref().is_some_and(String::is_empty) {
        checker.error(&at("into"), "`into` is the name of a field", Some("write `into: \"answer\"`"));
        ok = false;
    }
    let (pages, to) = (pages.ok()?, to?);
    let (through, target) = target?;
    let (items, next, pages) = pages.map_or((None, None, None), |(items, next, plan)| (Some(items), next, Some(plan)));
    let most_pages = spec.max_pages.unwrap_or(PAGES_MAX_DEFAULT);
    let label = format!("{method} {text}");
    let judge = Judge {
        empty_if: empty_if?,
        fail_if: fail_if?,
        retry_if: retry_if?,
        items,
        next,
        empty_is_null: method != Method::GET,
    };
    let list = pages.is_some();
    let gives = Gives::named(spec.into.as_ref(), list);
    let writes = to.is_some();
    let (query, headers, body) = (query?, headers?, body?);
    let parts = Parts { label: label.clone(), target, query, headers, body, to };
    let uses_group = parts.templates().any(Template::uses_group);
    let http = Http {
        through,
        method,
        label,
        uses_group,
        parts: Arc::new(parts),
        timeout: spec.timeout.map(Span::get),
        pages,
        most_pages,
        judge,
        reads_response: checker.reads_response().clone(),
        lost: Default::default(),
    };
    ok.then(|| Checked { kind: "Http", action: Box::new(http), gives, writes })
}

/// Checks a whole URL that is asked by GET, and whose answer says only that it was heard.
pub fn check_ping(at: &str, text: &str, checker: &mut Checker<'_>) -> Option<Checked> {
    const HELP: &str =
        "write a whole URL, as in `success: \"https://hc.example/{{ run.job }}\"`; scheme and host stand as they are";
    let Some(scheme) = scheme(text) else {
        checker.error(at, "a ping must be a whole URL, from http:// or https:// on", Some(HELP));
        return None;
    };
    let (through, target) = whole_url(scheme, at, text, HELP, checker)?;
    let label = format!("GET {text}");
    let uses_group = target.uses_group();
    let (query, headers, body) = (Vec::new(), Vec::new(), BodyPlan::None);
    let http = Http {
        through,
        method: Method::GET,
        label: label.clone(),
        uses_group,
        parts: Arc::new(Parts { label, target, query, headers, body, to: None }),
        timeout: None,
        pages: None,
        most_pages: PAGES_MAX_DEFAULT,
        judge: Judge { empty_if: None, fail_if: None, retry_if: None, items: None, next: None, empty_is_null: false },
        reads_response: checker.reads_response().clone(),
        lost: Default::default(),
    };
    Some(Checked { kind: "Http", action: Box::new(http), gives: Gives::Values, writes: false })
}

/// Where the call goes, and the template of its path there.
fn check_target(
    spec: &HttpSpec,
    via_at: &str,
    at: &str,
    text: &str,
    place: &Place<'_>,
    checker: &mut Checker<'_>,
) -> Option<(Through, Template)> {
    let scheme = scheme(text);
    if let Some(via) = &spec.via {
        if let Some(help) = spec.unknown_service(place) {
            checker.error(via_at, format!("there is no service {via:?}"), Some(&help));
            return None;
        }
        if scheme.is_some() {
            let help = "write the path alone, as in `get: \"/v1/patients\"`: the service has the rest in its `base`";
            checker.error(at, "a call through a service has a path, not a URL", Some(help));
            return None;
        }
        let template = checker.text(at, text, Flavor::UrlPath)?;
        if template.is_literal() {
            let path = if text.starts_with('/') { text.to_owned() } else { format!("/{text}") };
            if let Err(problem) = url::usable(path.trim_end()) {
                checker.error(at, problem, Some("write the path as it is sent, percent-encoded: \"/v1/a%20b\""));
                return None;
            }
        }
        return Some((Through::Named(via.clone()), template));
    }
    const HELP: &str = "write `get: \"https://host.example/path\"`; for a path add `via: \"..\"` with a service, whose `base` may have params";
    let Some(scheme) = scheme else {
        checker.error(at, "without `via` this must be a whole URL, from http:// or https:// on", Some(HELP));
        return None;
    };
    whole_url(scheme, at, text, HELP, checker)
}

/// The scheme that a URL begins with, as it is written in small letters.
fn scheme(text: &str) -> Option<&'static str> {
    let begins = |scheme: &&str| text.get(..scheme.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(scheme));
    ["http://", "https://"].into_iter().find(begins)
}

/// Where a URL without a service leads.
fn whole_url(scheme: &str, at: &str, text: &str, help: &str, checker: &mut Checker<'_>) -> Option<(Through, Template)> {
    // Scheme, host and port stand as they are; what follows them may be a template as any path.
    let end = text[scheme.len()..].find(['/', '?', '#']).map_or(text.len(), |end| end + scheme.len());
    let (origin, rest) = text.split_at(end);
    let origin = match url::split(origin) {
        Ok((origin, _)) => origin,
        Err(problem) => {
            checker.error(at, format!("this is no URL: {problem}"), Some(help));
            return None;
        }
    };
    let template = checker.template_or_literal(at, rest, Flavor::UrlPath)?;
    Some((Through::Own(Box::new(ServicePlan::anonymous(origin)), Mutex::default()), template))
}

fn check_body(spec: &HttpSpec, method: &Method, at: &str, checker: &mut Checker<'_>) -> Option<BodyPlan> {
    let Some(body) = &spec.body else { return Some(BodyPlan::None) };
    if matches!(*method, Method::GET | Method::HEAD) {
        checker.error(at, "a GET or HEAD has no body", Some("write it into `query`, or use `post`"));
        return None;
    }
    Some(match body {
        BodySpec::Json => BodyPlan::Json,
        BodySpec::Form(fields) => BodyPlan::Form(texts(fields, at, checker)?),
        BodySpec::Text(text) => BodyPlan::Text(checker.text(at, text, Flavor::Text)?),
    })
}

fn texts(map: &UniqueMap<String>, at: &str, checker: &mut Checker<'_>) -> Option<Vec<(String, Template)>> {
    let checked: Vec<_> = map
        .0
        .iter()
        .map(|(name, text)| {
            let template = checker.text(&format!("{at}[{name:?}]"), text, Flavor::Text);
            template.map(|template| (name.clone(), template))
        })
        .collect();
    checked.into_iter().collect()
}

/// A field, what is wrong with it, and what to write.
type Problem = Option<(&'static str, &'static str, &'static str)>;
type Pages = Option<(Expr, Option<Expr>, PagesPlan)>;

/// `Err(None)`: the filters have said what is wrong.
fn check_pages(
    spec: &HttpSpec,
    method: &Method,
    _at: &str,
    filter: &mut dyn FnMut(&str, &str) -> Option<Expr>,
) -> Result<Pages, Problem> {
    let Some(pages) = &spec.pages else { return Ok(None) };
    let in_query = |name: &String| spec.query.as_ref().is_some_and(|query| query.get(name).is_some());
    if *method == Method::HEAD {
        return Err(Some(("pages", "the answer to HEAD has no elements", "use `get`")));
    }
    const TWICE: &str = "the parameter of the pages stands in query too";
    let mut both = |items: &str, next: &str| {
        let (items, next) = (filter("items", items), filter("next", next));
        items.zip(next).ok_or(None)
    };
    Ok(Some(match pages {
        PagesSpec::Cursor(cursor) => {
            let (items, next) = both(&cursor.items, &cursor.next)?;
            if in_query(&cursor.param) {
                return Err(Some(("pages", TWICE, "leave it out of `query`: the first page has none")));
            }
            (items, Some(next), PagesPlan::Cursor(cursor.param.clone()))
        }
        PagesSpec::BodyToken(token) => {
            let (items, next) = both(&token.items, &token.next)?;
            if !matches!(spec.body, Some(BodySpec::Json | BodySpec::Form(_))) {
                return Err(Some((
                    "pages",
                    "BodyToken sends the token in a body",
                    "add `body: Json` or `body: Form({..})`",
                )));
            }
            (items, Some(next), PagesPlan::BodyToken(token.field.clone()))
        }
        PagesSpec::Link(link) => (filter("items", &link.items).ok_or(None)?, None, PagesPlan::Link),
        PagesSpec::Offset(offset) => {
            let items = filter("items", &offset.items).ok_or(None)?;
            if in_query(&offset.param) {
                return Err(Some(("pages", TWICE, "leave it out of `query`: it begins at 0")));
            }
            if offset.size == 0 {
                return Err(Some(("pages.size", "a page has at least one element", "write `size: 100`")));
            }
            (items, None, PagesPlan::Offset { param: offset.param.clone(), size: offset.size as usize })
        }
    }))
}
