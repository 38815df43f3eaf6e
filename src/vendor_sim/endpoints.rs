//! What the simulated vendor answers: one function for each endpoint.
//!
//! Called by [`server`](super::server) with a request and the instant of now; gives a [`Plan`] and leaves sockets and
//! waiting to the caller. The endpoints are described in [`vendor_sim`](super).

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use jiff::civil::Date;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    body, clock,
    decide::{Fault, MODEL_ATTEMPTS, PatientClass, patient_number},
    http::{Request, Response, digest, first, pairs},
    state::{Ack, Outage, OutageMode, State},
};

/// How long a plain endpoint takes, at time scale 1.
const PLAIN_LATENCY: Duration = Duration::from_millis(60);
/// How long an export takes, at time scale 1.
const EXPORT_TAKES: Duration = Duration::from_secs(3);
/// Patients of one file of an export.
const EXPORT_FILE_PATIENTS: u32 = 1000;
/// Patients of a page of the list when the client does not say.
const LIST_LIMIT: u32 = 500;
/// Most patients of a page of the list; more are not an error.
const LIST_LIMIT_MAX: u32 = 1000;
/// Longest idempotency key, in bytes.
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 256;
/// Longest outage and longest wait for one, in seconds: a day.
const OUTAGE_S_MAX: f64 = 86_400.0;

/// What to do with a request.
#[derive(Debug)]
pub(super) struct Plan {
    /// How long to think before it, in real time.
    pub(super) delay: Duration,
    pub(super) reply: Reply,
}

/// How an answer goes out.
#[derive(Debug)]
pub(super) enum Reply {
    /// Whole, as HTTP says.
    Answer(Response),
    /// Head and half of the body, then a reset.
    ResetMidBody(Response),
    /// `Content-Length` too long, then FIN.
    Short(Response),
    /// The body byte by byte.
    Drip(Response),
    /// A chunked body of 64 MiB.
    Huge,
    /// A reset instead of an answer.
    Reset,
    /// Nothing, until the client leaves.
    Hang,
}

#[derive(Deserialize)]
struct OutageOrder {
    #[serde(default)]
    after_s: f64,
    for_s: f64,
    mode: String,
}

/// Decides on a request and remembers what it changes.
pub(super) fn answer(state: &State, request: &Request, now: Instant) -> Plan {
    let segments: Vec<&str> = request.path.trim_start_matches('/').split('/').collect();
    if let ["_sim", rest @ ..] = segments.as_slice() {
        return at_once(control(state, request, rest, now));
    }
    if let Some(outage) = state.outage().filter(|outage| (outage.from..outage.until).contains(&now)) {
        let reply = match outage.mode {
            OutageMode::Unavailable => Reply::Answer(Response::error(503, "unavailable")),
            OutageMode::Hang => Reply::Hang,
            OutageMode::Refuse | OutageMode::Reset => Reply::Reset,
        };
        return Plan { delay: Duration::ZERO, reply };
    }
    match segments.as_slice() {
        ["oauth", "token"] => plain(state, only(request, "POST", || token(state, request, now))),
        ["v1", rest @ ..] => {
            if !is_authorized(state, request, now) {
                return at_once(Response::error(401, "token_expired").with("WWW-Authenticate", "Bearer"));
            }
            if !state.within_rate(now) {
                return at_once(Response::error(429, "too_many_requests").with("Retry-After", "1"));
            }
            api(state, request, rest, now)
        }
        _ => at_once(not_found()),
    }
}

fn api(state: &State, request: &Request, segments: &[&str], now: Instant) -> Plan {
    match *segments {
        ["patients", id, "vitals"] if request.method == "GET" => vitals(state, request, id),
        ["statistics"] if request.method == "GET" => statistics(state, request),
        ["patients", _, "vitals"] | ["statistics"] => at_once(not_allowed("GET")),
        ["patients"] => plain(state, only(request, "GET", || patients(state, request))),
        ["acks"] => plain(state, only(request, "POST", || acks(state, request))),
        ["exports"] => plain(state, only(request, "POST", || start_export(state, now))),
        ["exports", id] => plain(state, only(request, "GET", || export(state, id, now))),
        ["exports", id, file] => plain(state, only(request, "GET", || export_file(state, id, file, now))),
        _ => at_once(not_found()),
    }
}

fn vitals(state: &State, request: &Request, id: &str) -> Plan {
    let script = &state.script;
    let date = match date(request) {
        Ok(date) => date,
        Err(refusal) => return at_once(refusal),
    };
    let Some(number) = patient_number(id, state.options.patients) else {
        return plain(state, not_found());
    };
    let night = date.to_string();
    let asked = request.query("cursor").filter(|cursor| !cursor.is_empty());
    let Some(page) = (1..=script.pages(id, &night)).find(|&page| asked == cursor(page).as_deref()) else {
        return plain(state, Response::error(400, "cursor is not one that this night has given"));
    };
    let redirected = request.query("r") == Some("1");
    let attempt = state.attempt(number, &night, page, !redirected);
    let body = || Response::json_text(200, body::vitals(script, id, date, page));
    let reply = match script.class(id) {
        Some(PatientClass::Gone) => Reply::Answer(not_found()),
        Some(PatientClass::Revoked) => Reply::Answer(Response::error(403, "consent_revoked")),
        Some(PatientClass::Broken) => Reply::Answer(Response::error(500, "internal")),
        Some(PatientClass::Hang) => Reply::Hang,
        Some(PatientClass::BadJson) => Reply::Answer(body().cut()),
        Some(PatientClass::Huge) => Reply::Huge,
        None => match script.fault(id, &night, page, attempt).filter(|_| !redirected) {
            Some(fault) => broken(fault, body, script.retry_after_s(id, &night, attempt), id, &night),
            None => Reply::Answer(body()),
        },
    };
    Plan { delay: state.scaled(script.latency(id, &night, page, attempt)), reply }
}

fn broken(fault: Fault, body: impl Fn() -> Response, wait_s: u64, id: &str, night: &str) -> Reply {
    let too_many = || Response::error(429, "too_many_requests");
    Reply::Answer(match fault {
        Fault::TooManySeconds => too_many().with("Retry-After", wait_s.to_string()),
        Fault::TooManyDate => too_many().with("Retry-After", clock::http_date(Duration::from_secs(wait_s))),
        Fault::TooManyBare => too_many().with("RateLimit-Reset", "2"),
        Fault::Unavailable => Response::error(503, "unavailable").with("Retry-After", wait_s.to_string()),
        Fault::ServerError => Response::error(500, "internal"),
        Fault::BadGateway => html(502, "502 Bad Gateway"),
        Fault::BadJson => body().cut(),
        Fault::ErrorBody => Response::json(200, &json!({ "status": 601, "error": "too many requests" })),
        Fault::Redirect => Response::new(307, "text/plain", Vec::new())
            .with("Location", format!("/v1/patients/{id}/vitals?date={night}&r=1")),
        Fault::Hang => return Reply::Hang,
        Fault::Reset => return Reply::Reset,
        Fault::ResetMidBody => return Reply::ResetMidBody(body()),
        Fault::ShortBody => return Reply::Short(body()),
        Fault::Drip => return Reply::Drip(body()),
    })
}

fn patients(state: &State, request: &Request) -> Response {
    let limit = match request.query("limit").map(str::parse) {
        None => LIST_LIMIT,
        Some(Ok(limit @ 1..)) => u32::min(limit, LIST_LIMIT_MAX),
        Some(_) => return Response::error(400, "limit is not a number from 1 to 1000"),
    };
    let all = state.options.patients;
    let offset = match request.query("cursor").filter(|cursor| !cursor.is_empty()) {
        None => 0,
        Some(cursor) => match cursor.strip_prefix('o').and_then(|offset| offset.parse().ok()) {
            Some(offset) if offset < all => offset,
            _ => return Response::error(400, "cursor is not one that this list has given"),
        },
    };
    let end = offset.saturating_add(limit).min(all);
    let data: Vec<Value> = (offset + 1..=end).map(|number| body::patient(&state.script, number)).collect();
    let next = (end < all).then(|| format!("o{end}"));
    let response = Response::json(200, &json!({ "data": data, "next_cursor": next }));
    // Weak, as the same list may be compressed or not.
    let tag = format!("W/\"{:016x}\"", response.digest());
    let known = request.header("if-none-match").is_some_and(|tags| {
        let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
        tags.split(',').any(|one| one.trim() == "*" || opaque(one) == opaque(&tag))
    });
    if known { Response::new(304, "application/json", Vec::new()) } else { response }.with("ETag", tag)
}

fn statistics(state: &State, request: &Request) -> Plan {
    match date(request) {
        Err(refusal) => at_once(refusal),
        Ok(_) if state.statistics_fail() => plain(state, Response::error(500, "internal")),
        Ok(date) => Plan {
            delay: state.scaled(state.script.statistics_latency(&date.to_string())),
            reply: Reply::Answer(Response::json(200, &body::statistics(&state.script, date, state.options.patients))),
        },
    }
}

fn acks(state: &State, request: &Request) -> Response {
    let key = match request.header("idempotency-key") {
        Some(key) if !key.is_empty() && key.len() <= IDEMPOTENCY_KEY_BYTES_MAX => key,
        _ => return Response::error(400, "Idempotency-Key must have 1 to 256 bytes"),
    };
    let what = serde_json::from_slice(&request.body).ok();
    let accepted = json!({ "key": key, "status": "accepted" });
    match state.acknowledge(key, digest(&request.body), what) {
        Ack::First => Response::json(201, &accepted),
        Ack::Replayed => Response::json(200, &accepted).with("Idempotency-Replayed", "true"),
        Ack::Conflict => Response::error(409, "this Idempotency-Key came with another body"),
        Ack::Full => Response::error(507, "too many keys: POST /_sim/reset"),
    }
}

fn start_export(state: &State, now: Instant) -> Response {
    let number = state.start_export(now, state.scaled(EXPORT_TAKES));
    Response::json(202, &json!({ "id": number.to_string(), "status": "in_progress" }))
        .with("Content-Location", format!("/v1/exports/{number}"))
}

fn export(state: &State, id: &str, now: Instant) -> Response {
    match id.parse().ok().and_then(|number| state.export_is_ready(number, now)) {
        None => not_found(),
        Some(false) => Response::json(202, &json!({ "id": id, "status": "in_progress" })).with("Retry-After", "1"),
        Some(true) => {
            let all = state.options.patients;
            let files: Vec<Value> = (1..=all.div_ceil(EXPORT_FILE_PATIENTS))
                .map(|part| {
                    let count = EXPORT_FILE_PATIENTS.min(all - (part - 1) * EXPORT_FILE_PATIENTS);
                    json!({ "type": "patients", "url": format!("/v1/exports/{id}/patients-{part}.ndjson"), "count": count })
                })
                .collect();
            Response::json(200, &json!({ "id": id, "status": "done", "files": files }))
        }
    }
}

fn export_file(state: &State, id: &str, file: &str, now: Instant) -> Response {
    let ready = id.parse().ok().and_then(|number| state.export_is_ready(number, now)) == Some(true);
    let part = file.strip_prefix("patients-").and_then(|rest| rest.strip_suffix(".ndjson")?.parse::<u32>().ok());
    let all = state.options.patients;
    let (true, Some(part @ 1..)) = (ready, part) else { return not_found() };
    if part > all.div_ceil(EXPORT_FILE_PATIENTS) {
        return not_found();
    }
    let start = (part - 1) * EXPORT_FILE_PATIENTS;
    let mut lines = String::new();
    for number in start + 1..=all.min(start.saturating_add(EXPORT_FILE_PATIENTS)) {
        // Writing to a string cannot fail.
        let _ = writeln!(lines, "{}", body::patient(&state.script, number));
    }
    Response::new(200, "application/x-ndjson", lines.into_bytes())
}

fn token(state: &State, request: &Request, now: Instant) -> Response {
    if state.token_request_meets_proxy() {
        return html(200, "Please sign in to the network");
    }
    let form = pairs(&String::from_utf8_lossy(&request.body));
    let grant = match first(&form, "grant_type") {
        Some("client_credentials") => Some(state.grant_to_client(now)),
        Some("refresh_token") => state.rotate(first(&form, "refresh_token").unwrap_or_default(), now),
        _ => return Response::error(400, "unsupported_grant_type"),
    };
    match grant {
        None => Response::error(400, "invalid_grant"),
        Some(grant) => Response::json(
            200,
            &json!({
                "access_token": grant.access,
                "token_type": "Bearer",
                "expires_in": state.options.token_ttl.as_secs(),
                "refresh_token": grant.refresh,
            }),
        )
        .with("Cache-Control", "no-store"),
    }
}

fn control(state: &State, request: &Request, segments: &[&str], now: Instant) -> Response {
    match *segments {
        ["stats"] => only(request, "GET", || Response::json(200, &state.stats())),
        ["expected"] => only(request, "GET", || match date(request) {
            Err(refusal) => refusal,
            Ok(date) => {
                let expected = state.script.expected(&date.to_string(), state.options.patients, MODEL_ATTEMPTS);
                // Numbers, lists and maps with text keys always become JSON.
                Response::json(200, &serde_json::to_value(expected).unwrap_or_default())
            }
        }),
        ["acks"] => only(request, "GET", || match date(request) {
            Err(refusal) => refusal,
            Ok(date) => Response::json(200, &state.acknowledged(&date.to_string())),
        }),
        ["reset"] => only(request, "POST", || {
            state.reset();
            Response::json(200, &json!({ "status": "reset" }))
        }),
        ["outage"] => only(request, "POST", || outage(state, request, now)),
        _ => not_found(),
    }
}

fn outage(state: &State, request: &Request, now: Instant) -> Response {
    let order: OutageOrder = match serde_json::from_slice(&request.body) {
        Ok(order) => order,
        Err(error) => return Response::error(400, &format!("outage: {error}")),
    };
    let mode = match order.mode.as_str() {
        "503" => OutageMode::Unavailable,
        "hang" => OutageMode::Hang,
        "refuse" => OutageMode::Refuse,
        "reset" => OutageMode::Reset,
        _ => return Response::error(400, "outage: mode is one of 503, hang, refuse, reset"),
    };
    let seconds = |s: f64| Duration::try_from_secs_f64(s).ok().filter(|_| s <= OUTAGE_S_MAX);
    let (Some(after), Some(length)) = (seconds(order.after_s), seconds(order.for_s)) else {
        return Response::error(400, "outage: after_s and for_s are seconds from 0 to 86400");
    };
    let from = now + after;
    state.set_outage((!length.is_zero()).then_some(Outage { from, until: from + length, mode }));
    Response::json(200, &json!({ "status": "set" }))
}

fn is_authorized(state: &State, request: &Request, now: Instant) -> bool {
    let Some((scheme, token)) = request.header("authorization").and_then(|value| value.split_once(' ')) else {
        return false;
    };
    let is_static = token == super::DEMO_TOKEN && !state.options.oauth;
    scheme.eq_ignore_ascii_case("bearer") && (is_static || state.is_live(token, now))
}

/// The night that a request asks for, or the refusal.
fn date(request: &Request) -> Result<Date, Response> {
    request
        .query("date")
        .filter(|text| text.len() == 10)
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Response::error(400, "date is missing or not YYYY-MM-DD"))
}

/// The cursor that names a page; the first page is named by none.
fn cursor(page: u32) -> Option<String> {
    (page > 1).then(|| body::cursor(page))
}

fn only(request: &Request, method: &str, answer: impl FnOnce() -> Response) -> Response {
    if request.method == method { answer() } else { not_allowed(method) }
}

fn not_allowed(method: &str) -> Response {
    Response::error(405, "method_not_allowed").with("Allow", method)
}

fn not_found() -> Response {
    Response::error(404, "not_found")
}

fn html(status: u16, title: &str) -> Response {
    let page =
        format!("<!doctype html><html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>\n");
    Response::new(status, "text/html", page.into_bytes())
}

fn at_once(response: Response) -> Plan {
    Plan { delay: Duration::ZERO, reply: Reply::Answer(response) }
}

fn plain(state: &State, response: Response) -> Plan {
    Plan { delay: state.scaled(PLAIN_LATENCY), reply: Reply::Answer(response) }
}
