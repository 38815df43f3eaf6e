//! What authors write about a service, its check, and how a run begins with it.
//!
//! `job` checks each service once; `run` starts the checked plan for each run, with that run's params and secrets. What is
//! rendered here never sees an item, so no item can change where a service stands or who it says it is.

use super::{
    Service, SharedLimits,
    pool::Pool,
    retry::{self, Retry, RetrySpec},
    tls,
    transport::Dialer,
    url::{self, Origin},
};
use crate::{
    item::{Class, Failure, Key, Value},
    lang::{Checker, Facts, Flavor, RunFacts, Template},
    limits::{
        BODY_BYTES_DEFAULT, BODY_BYTES_MAX, CONNECT_TIMEOUT_DEFAULT, DOWNLOAD_BYTES_DEFAULT, IN_FLIGHT_MAX,
        POOL_IDLE_MAX, RATES_MAX, RETRY_AFTER_MAX_DEFAULT, SERVICE_TIMEOUT_DEFAULT,
    },
    problem::UniqueMap,
    units::{Rate, Size, Span},
    world::World,
};
use base64::Engine;
use hyper::{
    HeaderMap,
    header::{self, HeaderName, HeaderValue},
};
use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

crate::spec! {
    /// A named outside thing that actions call through, with the limits that all its calls share.
    pub struct ServiceSpec as "Service" {
        /// What `via` names.
        name: String, example "\"vendor\"";
        /// Where it stands: an absolute URL. Params may stand in it; paths are added to it.
        base: String, example "\"https://api.vendor.example/v2\"";
        /// Sent with every call.
        headers: Option<UniqueMap<String>>, example "{ \"X-Api-Key\": \"{{ secret.vendor_key }}\" }";
        /// Who we say we are.
        auth: Option<AuthSpec>, example "Bearer(\"{{ secret.vendor_token }}\")";
        /// Of one call, from the request to the last byte of its answer.
        timeout: Option<Span>, default "30s", example "\"5s\"";
        /// Of opening a connection.
        connect_timeout: Option<Span>, default "5s", example "\"5s\"";
        /// Most calls at once.
        max_in_flight: Option<u32>, example "32";
        /// Most calls in each window of time; all of them hold.
        rate: Option<Vec<Rate>>, example "[\"100/min\", \"10000/day\"]";
        /// How often a failed call is tried again.
        retry: Option<RetrySpec>, default "Retry(max_attempts: 4, initial_interval: \"500ms\", max_interval: \"10s\")", example "Retry(max_attempts: 4, initial_interval: \"200ms\", max_interval: \"10s\")";
        /// Largest answer that is read, unpacked.
        max_body: Option<Size>, default "1MB", example "\"1MB\"";
        /// Largest download.
        max_file: Option<Size>, default "1GB", example "\"1GB\"";
        /// A longer wait that the service asks for is cut to this.
        retry_after_max: Option<Span>, default "60s", example "\"60s\"";
        /// Which certificates are trusted besides those built in.
        tls: Option<TlsSpec>, example "Tls(ca_file: \"vendor-ca.pem\")";
    }
}

crate::choice! {
    /// Who we say we are.
    pub enum AuthSpec as "Auth" {
        /// A token.
        Bearer(String) example "Bearer(\"{{ secret.vendor_token }}\")",
        /// A user and a password.
        Basic { BasicSpec } example "Basic(user: \"gateway\", password: \"{{ secret.vendor_password }}\")",
    }
}

crate::spec! {
    /// A user and a password.
    pub struct BasicSpec as "Basic" {
        /// The user.
        user: String, example "\"gateway\"";
        /// The password.
        password: String, example "\"{{ secret.vendor_password }}\"";
    }
}

crate::spec! {
    /// Which certificates are trusted besides those built in.
    pub struct TlsSpec as "Tls" {
        /// PEM file with the certificate of a private CA, beside the job file.
        ca_file: Option<String>, example "\"vendor-ca.pem\"";
    }
}

/// A checked service.
#[derive(Clone, Debug)]
pub struct ServicePlan {
    /// What `via` names.
    pub name: String,
    of_all_jobs: bool,
    base: Base,
    headers: Vec<(HeaderName, Template)>,
    auth: Option<Auth>,
    pub(super) timeout: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) max_in_flight: Option<usize>,
    pub(super) rate: Vec<(u64, Duration)>,
    pub(super) retry: Retry,
    pub(super) max_body: u64,
    pub(super) max_file: u64,
    pub(super) retry_after_max: Duration,
    pub(super) ca_file: Option<PathBuf>,
}

#[derive(Clone, Debug)]
enum Base {
    Template(Template),
    Origin(Origin),
}

#[derive(Clone, Debug)]
enum Auth {
    Bearer(Template),
    Basic(Template, Template),
}

/// Checks a service at `path`. The checker's scope is that of a service. `None` when there were errors.
pub fn check(spec: &ServiceSpec, path: &str, checker: &mut Checker<'_>) -> Option<ServicePlan> {
    let at = |field: &str| format!("{path}.{field}");
    if spec.name.trim().is_empty() {
        checker.error(&at("name"), "a service needs a name", Some("write `name: \"vendor\"`"));
    }
    let base = check_base(&spec.base, &at("base"), checker);
    let headers = spec.headers.as_ref().map_or(Some(Vec::new()), |map| check_headers(map, &at("headers"), checker));
    let auth = match &spec.auth {
        None => Some(None),
        Some(AuthSpec::Bearer(token)) => text(token, &at("auth"), checker).map(|token| Some(Auth::Bearer(token))),
        Some(AuthSpec::Basic(basic)) => {
            let user = text(&basic.user, &at("auth.user"), checker);
            let password = text(&basic.password, &at("auth.password"), checker);
            user.zip(password).map(|(user, password)| Some(Auth::Basic(user, password)))
        }
    };
    if let (Some(_), Some(headers)) = (&spec.auth, &headers)
        && headers.iter().any(|(name, _)| name == header::AUTHORIZATION)
    {
        let help = "leave the one or the other out";
        checker.error(&at("headers"), "`auth` and the header Authorization say the same thing twice", Some(help));
        return None;
    }
    let retry = spec.retry.as_ref().map_or(Some(Retry::default()), |spec| retry::check(spec, &at("retry"), checker));
    let limits = check_limits(spec, path, checker);
    let ca_file = spec.tls.as_ref().and_then(|tls| tls.ca_file.as_ref());
    let ca_file = ca_file.map(|name| checker.input(&at("tls.ca_file"), name));
    limits?;
    Some(ServicePlan {
        name: spec.name.clone(),
        of_all_jobs: false,
        base: Base::Template(base?),
        headers: headers?,
        auth: auth?,
        timeout: spec.timeout.map_or(SERVICE_TIMEOUT_DEFAULT, Span::get),
        connect_timeout: spec.connect_timeout.map_or(CONNECT_TIMEOUT_DEFAULT, Span::get),
        max_in_flight: spec.max_in_flight.map(|most| most as usize),
        rate: spec.rate.iter().flatten().map(|rate| (u64::from(rate.count), rate.window)).collect(),
        retry: retry?,
        max_body: spec.max_body.map_or(BODY_BYTES_DEFAULT, Size::bytes),
        max_file: spec.max_file.map_or(DOWNLOAD_BYTES_DEFAULT, Size::bytes),
        retry_after_max: spec.retry_after_max.map_or(RETRY_AFTER_MAX_DEFAULT, Span::get),
        ca_file,
    })
}

/// Checks `headers` of a service or of a call: names that exist, templates as values.
pub fn check_headers(
    map: &UniqueMap<String>,
    path: &str,
    checker: &mut Checker<'_>,
) -> Option<Vec<(HeaderName, Template)>> {
    // What frames the message belongs to the client; saying it otherwise would smuggle a second request in.
    const OURS: [&str; 9] = [
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    let mut headers: Vec<(HeaderName, Template)> = Vec::new();
    let mut ok = true;
    for (name, value) in &map.0 {
        let path = format!("{path}[{name:?}]");
        match HeaderName::from_bytes(name.as_bytes()) {
            Err(_) => checker.error(
                &path,
                "this is no name of a header",
                Some("write letters, digits and `-`, as in \"X-Api-Key\""),
            ),
            Ok(name) if OURS.contains(&name.as_str()) => {
                checker.error(&path, "this header is set by lamplighter itself", Some("leave it out"));
            }
            Ok(name) if headers.iter().any(|(other, _)| *other == name) => {
                checker.error(
                    &path,
                    "this header is given twice: names are the same in any case",
                    Some("leave one out"),
                );
            }
            Ok(name) => {
                if let Some(value) = text(value, &path, checker) {
                    headers.push((name, value));
                    continue;
                }
            }
        }
        ok = false;
    }
    ok.then_some(headers)
}

/// The value of a header from data.
///
/// # Errors
/// When it has control characters: nothing may begin a second header.
pub fn header_value(name: &HeaderName, value: &str) -> Result<HeaderValue, Failure> {
    HeaderValue::from_bytes(value.trim().as_bytes()).map_err(|_| {
        Failure::new(Class::Data, format!("the value of header {name} has a line break or control character"))
    })
}

fn text(text: &str, path: &str, checker: &mut Checker<'_>) -> Option<Template> {
    checker.text(path, text, Flavor::Text)
}

fn check_base(base: &str, path: &str, checker: &mut Checker<'_>) -> Option<Template> {
    const HELP: &str = "write `base: \"https://api.vendor.example\"` or `base: \"{{ params.vendor }}\"`";
    let template = text(base, path, checker)?;
    if template.variables().iter().any(|name| name != "params" && !name.starts_with("params.")) {
        checker.error(path, "only params may stand in the base of a service", Some(HELP));
        return None;
    }
    if checker.scope().any_params && !template.is_literal() {
        return Some(template);
    }
    // With the defaults of the params: what `--set` makes of it is seen when the run starts.
    let facts = facts(&Arc::new(RunFacts {
        params: checker.scope().params.clone(),
        run: Value::Null,
        secrets: BTreeMap::new(),
    }));
    let problem = match template.render(&facts) {
        Ok(url) => place(&url).err(),
        Err(error) => Some(error.to_string()),
    };
    if let Some(problem) = problem {
        checker.error(path, format!("the base of a service must be an absolute URL: {problem}"), Some(HELP));
        return None;
    }
    Some(template)
}

fn check_limits(spec: &ServiceSpec, path: &str, checker: &mut Checker<'_>) -> Option<()> {
    let mut ok = true;
    let mut error = |field: &str, message: String, help: &str| {
        checker.error(&format!("{path}.{field}"), message, Some(help));
        ok = false;
    };
    let spans = [
        ("timeout", spec.timeout, "write `timeout: \"30s\"`"),
        ("connect_timeout", spec.connect_timeout, "write `connect_timeout: \"5s\"`"),
        ("retry_after_max", spec.retry_after_max, "write `retry_after_max: \"60s\"`"),
    ];
    for (field, span, help) in spans {
        if span.is_some_and(Span::is_zero) {
            error(field, format!("`{field}` must be longer than nothing"), help);
        }
    }
    if spec.max_in_flight.is_some_and(|most| !(1..=IN_FLIGHT_MAX).contains(&most)) {
        error("max_in_flight", format!("`max_in_flight` must be 1 to {IN_FLIGHT_MAX}"), "write `max_in_flight: 32`");
    }
    if spec.max_body.is_some_and(|size| !(1..=BODY_BYTES_MAX).contains(&size.bytes())) {
        let message = format!("`max_body` must be 1 to {BODY_BYTES_MAX} bytes: an answer is held in memory");
        error("max_body", message, "save a larger answer to a file: `Http(.., to: \"..\")`");
    }
    if spec.max_file.is_some_and(|size| size.bytes() == 0) {
        error("max_file", "`max_file` must be larger than nothing".to_owned(), "write `max_file: \"1GB\"`");
    }
    let rates = spec.rate.as_deref().unwrap_or_default();
    if spec.rate.is_some() && (rates.is_empty() || rates.len() > RATES_MAX) {
        error(
            "rate",
            format!("`rate` is a list of 1 to {RATES_MAX} rates"),
            "write `rate: [\"100/min\", \"10000/day\"]`, or leave it out",
        );
    }
    for (place, rate) in rates.iter().enumerate() {
        if rates[..place].iter().any(|other| other.window == rate.window) {
            error(&format!("rate[{place}]"), "two rates have the same window".to_owned(), "keep the smaller one");
        }
    }
    ok.then_some(())
}

/// The origin of a base and the path before all paths, without `/` at its end.
fn place(base: &str) -> Result<(Origin, String), String> {
    let (origin, target) = url::split(base.trim())?;
    if target.contains('?') {
        return Err("it has a query: queries belong into the calls".to_owned());
    }
    Ok((origin, target.trim_end_matches('/').to_owned()))
}

fn facts(run: &Arc<RunFacts>) -> Facts {
    let key = Key::parse("service").expect("a plain word is a key");
    Facts::new(Arc::new(Value::Null), key, run.clone())
}

impl ServicePlan {
    /// A service with all defaults for one literal URL: an `Http` without `via`.
    pub fn anonymous(origin: Origin) -> ServicePlan {
        ServicePlan {
            name: origin.to_string(),
            of_all_jobs: false,
            base: Base::Origin(origin),
            headers: Vec::new(),
            auth: None,
            timeout: SERVICE_TIMEOUT_DEFAULT,
            connect_timeout: CONNECT_TIMEOUT_DEFAULT,
            max_in_flight: None,
            rate: Vec::new(),
            retry: Retry::default(),
            max_body: BODY_BYTES_DEFAULT,
            max_file: DOWNLOAD_BYTES_DEFAULT,
            retry_after_max: RETRY_AFTER_MAX_DEFAULT,
            ca_file: None,
        }
    }

    /// The same where it stands in the configuration: it is one for all jobs.
    pub fn for_all_jobs(self) -> ServicePlan {
        ServicePlan { of_all_jobs: true, ..self }
    }

    /// Starts the service for a run, which goes in by `limits`: renders what sees params and secrets, once, and reads the `ca_file` (the one short
    /// read that blocks). Opens no connection.
    ///
    /// # Errors
    /// Class `data`, when a template does not render, the base is no URL, or the `ca_file` cannot be used.
    pub fn start(&self, world: &World, run: &Arc<RunFacts>, limits: &SharedLimits) -> Result<Service, Failure> {
        let facts = facts(run);
        let failed = |what: &str, why: &dyn std::fmt::Display| {
            Failure::new(Class::Data, format!("{what} of service {:?} cannot be used: {why}", self.name))
        };
        let render = |what: &str, template: &Template| template.render(&facts).map_err(|error| failed(what, &error));
        let (origin, prefix) = match &self.base {
            Base::Origin(origin) => (origin.clone(), String::new()),
            Base::Template(base) => place(&render("base", base)?).map_err(|why| failed("base", &why))?,
        };
        let mut headers = HeaderMap::new();
        headers
            .insert(header::USER_AGENT, HeaderValue::from_static(concat!("lamplighter/", env!("CARGO_PKG_VERSION"))));
        for (name, value) in &self.headers {
            headers.insert(name, header_value(name, &render("headers", value)?)?);
        }
        let auth = match &self.auth {
            None => None,
            Some(Auth::Bearer(token)) => Some(format!("Bearer {}", render("auth", token)?.trim())),
            Some(Auth::Basic(user, password)) => {
                let pair = format!("{}:{}", render("auth", user)?, render("auth", password)?);
                Some(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair)))
            }
        };
        if let Some(auth) = auth {
            let mut value = header_value(&header::AUTHORIZATION, &auth)?;
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        headers.insert(header::HOST, header_value(&header::HOST, &origin.authority())?);
        let ca = match &self.ca_file {
            Some(file) => Some(std::fs::read(file).map_err(|error| failed("ca_file", &error))?),
            None => None,
        };
        let tls = match origin.tls {
            true => Some(tls::Connector::new(ca.as_deref()).map_err(|why| failed("ca_file", &why))?),
            false => None,
        };
        let idle = self.max_in_flight.unwrap_or(POOL_IDLE_MAX);
        let owner = if self.of_all_jobs { None } else { run.run["job"].as_str().map(str::to_owned) };
        let admission = limits.of(&self.name, owner, &origin, &self.rate, self.max_in_flight);
        Ok(Service {
            name: self.name.clone(),
            world: world.clone(),
            prefix,
            headers,
            timeout: self.timeout,
            connect_timeout: self.connect_timeout,
            admission,
            retry: self.retry.clone(),
            pool: Pool::new(Dialer::new(origin, tls), idle),
            max_body: self.max_body,
            max_file: self.max_file,
            retry_after_max: self.retry_after_max,
        })
    }
}
