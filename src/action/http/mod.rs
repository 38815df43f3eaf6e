//! `Http`: asks a service, page by page, and gives what it says.
//!
//! Each page is a call of its own with its own attempts; the service does the waiting and retrying. What an answer means
//! is decided here: `_if` fields, status, body. A message names the method and the path as the author wrote it, and the
//! status; never a rendered path, a query, a header or a body.

mod check;
mod judge;
mod link;
mod quick;
mod spec;
#[cfg(test)]
mod tests;

pub(in crate::action) use check::check;
pub use check::check_ping;
pub use spec::HttpSpec;

use super::{Acted, Action, ItemContext, Out, RunContext, Stop, compute::Lost, output::OutputFile};
use crate::{
    item::{Class, Failure, Value},
    lang::{Facts, ReadsResponse, RenderError, Template},
    limits::INLINE_BODY_BYTES_MAX,
    service::{Answer, Attempts, Body, Ended, Request, Service, ServicePlan, SharedLimits, Sink, header_value, url},
    world::{BoxFuture, World},
};
use hyper::{
    HeaderMap, Method,
    body::Bytes,
    header::{self, HeaderName, HeaderValue},
};
use judge::{Judge, Verdict};
use sha2::{Digest, Sha256};
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const DEADLINE: HeaderName = HeaderName::from_static("lamplighter-deadline");

struct Http {
    through: Through,
    method: Method,
    /// How messages name the call: the method and the path as it is written.
    label: String,
    parts: Arc<Parts>,
    timeout: Option<Duration>,
    pages: Option<PagesPlan>,
    most_pages: u32,
    judge: Judge,
    /// Nobody wants the head of an answer where no text of the job reads it.
    reads_response: ReadsResponse,
    /// A template reads the group of a gather: it renders on a CPU thread.
    uses_group: bool,
    lost: Lost,
}

/// The service that a call goes through.
enum Through {
    /// One of the job.
    Named(String),
    /// One of its own, started by the first call of a run and replaced by that of the next.
    Own(Box<ServicePlan>, Mutex<Option<(Weak<RunContext>, Arc<Service>)>>),
}

enum BodyPlan {
    None,
    Json,
    Form(Vec<(String, Template)>),
    Text(Template),
}

enum PagesPlan {
    /// Name of the parameter.
    Cursor(String),
    Link,
    /// Name of the field.
    BodyToken(String),
    Offset {
        param: String,
        size: usize,
    },
}

/// The templates of a call, rendered.
struct Rendered {
    target: String,
    query: Vec<(String, String)>,
    headers: HeaderMap,
    body: Sent,
    to: Option<String>,
}

/// What is sent, before it is bytes: a token of the next page may go into it.
enum Sent {
    Nothing,
    Json(Arc<Value>),
    Form(Vec<(String, String)>),
    Text(String),
}

/// A good answer.
struct Page {
    answer: Answer,
    /// What it gives.
    values: Vec<Value>,
    /// What names the next page; null where nothing does.
    next: Value,
}

/// How the next page is asked for.
enum Next {
    /// By this value of the parameter or field.
    Token(String),
    /// At this path of the origin.
    Target(String),
}

impl Action for Http {
    fn run<'a>(&'a self, cx: &'a ItemContext, facts: &'a Facts, out: &'a mut dyn Out) -> BoxFuture<'a, Acted> {
        Box::pin(self.work(cx, facts, out))
    }

    fn preview(&self, facts: &Facts) -> Option<Result<String, Failure>> {
        let rendered = match self.parts.render(facts) {
            Ok(rendered) => rendered,
            Err(failure) => return Some(Err(failure)),
        };
        let mut target = rendered.target;
        for (name, value) in &rendered.query {
            url::add_query(&mut target, name, value);
        }
        let mut line = match &self.through {
            Through::Named(service) => format!("{} {target} via {service}", self.method),
            Through::Own(plan, _) => format!("{} {}{target}", self.method, plan.name),
        };
        if let Some(to) = rendered.to {
            line.push_str(&format!(" to {to}"));
        }
        Some(Ok(line))
    }
}

impl Http {
    async fn work(&self, cx: &ItemContext, facts: &Facts, out: &mut dyn Out) -> Acted {
        let service = self.service(cx, facts)?;
        let rendered = if self.uses_group {
            let (parts, facts) = (self.parts.clone(), facts.clone());
            compute(&self.lost, cx, move || parts.render(&facts)).await?
        } else {
            self.parts.render(facts)
        };
        let rendered = rendered.map_err(given_up)?;
        let whole = self.parts.target.whole_url();
        let mut target = service.target(&rendered.target, whole).map_err(|why| self.data(&why))?;
        for (name, value) in &rendered.query {
            url::add_query(&mut target, name, value);
        }
        let mut request = Request {
            method: self.method.clone(),
            label: self.label.clone(),
            target,
            headers: self.headers_of(cx, &rendered),
            body: body_of(&rendered.body, None).map_err(|why| self.data(&why))?,
            timeout: self.timeout,
            digest: self.reads_response.get(),
        };
        // What a cursor is added to.
        let first = self.pages.as_ref().map(|_| request.target.clone()).unwrap_or_default();
        let mut seen = HashSet::new();
        let mut elements = 0;
        for page in 1.. {
            let read = self.call(&service, cx, facts, &request, rendered.to.as_deref(), out).await?;
            elements += read.values.len();
            let next = match &self.pages {
                None => None,
                Some(plan) => self.next(plan, &service, &request, &read, elements)?,
            };
            for value in read.values {
                out.give(value).await?;
            }
            let Some(next) = next else { return Ok(()) };
            let token = match &next {
                Next::Token(token) | Next::Target(token) => token,
            };
            if !seen.insert(<[u8; 32]>::from(Sha256::digest(token))) {
                return Err(self.data("the service names a page again that was read already: the pages have no end"));
            }
            if page == self.most_pages {
                let message = format!("{} has more than {page} pages; raise max_pages", self.label);
                return Err(Stop::given_up(Class::TooLarge, message));
            }
            match (&self.pages, next) {
                (_, Next::Target(target)) => request.target = target,
                (Some(PagesPlan::BodyToken(field)), Next::Token(token)) => {
                    let body = body_of(&rendered.body, Some((field, &token)));
                    request.body = body.map_err(|why| self.data(&why))?;
                }
                (Some(PagesPlan::Cursor(param) | PagesPlan::Offset { param, .. }), Next::Token(token)) => {
                    request.target.clone_from(&first);
                    url::add_query(&mut request.target, param, &token);
                }
                (None | Some(PagesPlan::Link), Next::Token(_)) => unreachable!("only a plan with a name gives a token"),
            }
            if request.headers.contains_key(IDEMPOTENCY_KEY) && !self.sets(&IDEMPOTENCY_KEY) {
                // Another page is another request: the same key would give the first page again.
                let key = format!("{}-{}", cx.idempotency_key(), page + 1);
                request.headers.insert(IDEMPOTENCY_KEY, ascii(&key));
            }
        }
        unreachable!("the last page returns")
    }

    /// One page with all its attempts.
    async fn call(
        &self,
        service: &Service,
        cx: &ItemContext,
        facts: &Facts,
        request: &Request,
        to: Option<&str>,
        out: &mut dyn Out,
    ) -> Result<Page, Box<Stop>> {
        let mut attempts = Attempts::new(service, &cx.slot);
        loop {
            let mut saved = to.map(|path| Saved { cx, path, file: None });
            let sink = saved.as_mut().map(|saved| saved as &mut dyn Sink);
            let mut answer = match attempts.send(request, sink).await.map_err(ended)? {
                Ok(answer) => answer,
                Err(failure) => {
                    attempts.again(failure, None).await.map_err(ended)?;
                    continue;
                }
            };
            let mut facts = facts.clone();
            if request.digest {
                facts.response = Arc::new(answer.head());
                out.response(facts.response.clone());
            }
            let (mut verdict, judged) = self.judge(cx, facts, answer).await?;
            answer = judged;
            if let Verdict::Good { values, .. } = &mut verdict
                && let Some(saved) = saved
            {
                *values = vec![saved.commit().await?];
            }
            let failure = match verdict {
                Verdict::Good { values, next } => {
                    attempts.done();
                    return Ok(Page { answer, values, next });
                }
                Verdict::Empty => {
                    attempts.done();
                    return Err(Stop::Empty.into());
                }
                Verdict::Filter(why) => {
                    attempts.done();
                    return Err(Stop::given_up(Class::Data, format!("{} answered, but {why}", self.label)));
                }
                Verdict::TooMany => {
                    attempts.done();
                    return Err(Stop::given_up(
                        Class::TooLarge,
                        format!("a page of {} has too many elements", self.label),
                    ));
                }
                Verdict::FailIf => {
                    attempts.done();
                    let message = format!("{} answered {} and fail_if holds", self.label, answer.status);
                    return Err(Stop::given_up(Class::Answer, message));
                }
                Verdict::RetryIf => {
                    let message = format!("{} answered {} and retry_if holds", self.label, answer.status);
                    Failure::new(Class::Answer, message)
                }
                Verdict::Undecodable(why) => {
                    let message =
                        format!("{} answered {}, but its body cannot be read: {why}", self.label, answer.status);
                    Failure::new(Class::Decode, message)
                }
                Verdict::Status => self.refused(&answer, request, attempts.sent()),
            };
            let stated = answer.stated_wait(cx.run.world.wall());
            attempts.again(failure, stated).await.map_err(ended)?;
        }
    }

    async fn judge(&self, cx: &ItemContext, facts: Facts, mut answer: Answer) -> Result<(Verdict, Answer), Box<Stop>> {
        let small = !matches!(&answer.body, Body::Whole(bytes) if bytes.len() > INLINE_BODY_BYTES_MAX);
        if small && self.judge.is_quick() {
            return Ok((self.judge.judge(&mut answer, &facts), answer));
        }
        let judge = self.judge.clone();
        compute(&self.lost, cx, move || (judge.judge(&mut answer, &facts), answer)).await
    }

    /// The failure of an answer that is no success.
    fn refused(&self, answer: &Answer, request: &Request, sent: u32) -> Failure {
        let (label, status) = (&self.label, answer.status);
        if let Some(why) = &answer.redirect {
            return Failure::new(Class::Redirect, format!("{label} answered {status}, which is not followed: {why}"));
        }
        if status == 409 && sent > 1 && request.headers.contains_key(IDEMPOTENCY_KEY) {
            let message = format!("{label} answered 409 to an idempotency key that it had seen in an earlier attempt");
            return Failure::new(Class::Conflict, message);
        }
        Failure::new(Class::Http(status), format!("{label} answered {status}"))
    }

    /// How the page after `page` is asked for; `elements` were given so far. `None` after the last.
    fn next(
        &self,
        plan: &PagesPlan,
        service: &Service,
        request: &Request,
        page: &Page,
        elements: usize,
    ) -> Result<Option<Next>, Box<Stop>> {
        Ok(match plan {
            PagesPlan::Cursor(_) | PagesPlan::BodyToken(_) => match &page.next {
                Value::Null => None,
                Value::String(token) if token.is_empty() => None,
                Value::String(token) => Some(Next::Token(token.clone())),
                Value::Number(number) => Some(Next::Token(number.to_string())),
                _ => return Err(self.data("what `next` gives is no text and no number")),
            },
            PagesPlan::Offset { size, .. } => (page.values.len() >= *size).then(|| Next::Token(elements.to_string())),
            PagesPlan::Link => match link::next(&page.answer.headers) {
                None => None,
                Some(reference) => {
                    let target = url::resolve(service.origin(), &request.target, &reference);
                    Some(Next::Target(target.map_err(|why| self.data(&format!("its link to the next page: {why}")))?))
                }
            },
        })
    }

    fn service(&self, cx: &ItemContext, facts: &Facts) -> Result<Arc<Service>, Box<Stop>> {
        let (plan, kept) = match &self.through {
            Through::Named(name) => {
                let service = cx.run.services.get(name).cloned();
                return service.ok_or_else(|| self.data(&format!("the service {name:?} was not started")));
            }
            Through::Own(plan, kept) => (plan, kept),
        };
        let find = |kept: &Option<(Weak<RunContext>, Arc<Service>)>| {
            let (run, service) = kept.as_ref()?;
            std::ptr::eq(run.as_ptr(), Arc::as_ptr(&cx.run)).then(|| service.clone())
        };
        if let Some(service) = find(&kept.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(service);
        }
        let started = Arc::new(
            plan.start(&cx.run.world, &facts.run, &SharedLimits::new(cx.run.world.clone())).map_err(given_up)?,
        );
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        // Another worker may have been faster: all share one.
        let service = find(&kept).unwrap_or(started);
        *kept = Some((Arc::downgrade(&cx.run), service.clone()));
        Ok(service)
    }

    fn sets(&self, name: &HeaderName) -> bool {
        self.parts.headers.iter().any(|(set, _)| set == name)
    }

    fn headers_of(&self, cx: &ItemContext, rendered: &Rendered) -> HeaderMap {
        let mut headers = rendered.headers.clone();
        let mut unless_set = |name: HeaderName, value: &dyn Fn() -> Option<HeaderValue>| {
            if !headers.contains_key(&name)
                && let Some(value) = value()
            {
                headers.insert(name, value);
            }
        };
        let kind = match &rendered.body {
            Sent::Nothing => None,
            Sent::Json(_) => Some("application/json"),
            Sent::Form(_) => Some("application/x-www-form-urlencoded"),
            Sent::Text(_) => Some("text/plain; charset=utf-8"),
        };
        unless_set(header::CONTENT_TYPE, &|| kind.map(HeaderValue::from_static));
        if matches!(self.method, Method::POST | Method::PATCH) {
            unless_set(IDEMPOTENCY_KEY, &|| Some(ascii(&cx.idempotency_key())));
        }
        unless_set(DEADLINE, &|| deadline(cx).map(|text| ascii(&text)));
        headers
    }

    fn data(&self, why: &str) -> Box<Stop> {
        Stop::given_up(Class::Data, format!("{}: {why}", self.label))
    }
}

/// The templates of a call: they may go to a CPU thread.
struct Parts {
    label: String,
    target: Template,
    query: Vec<(String, Template)>,
    headers: Vec<(HeaderName, Template)>,
    body: BodyPlan,
    to: Option<Template>,
}

impl Parts {
    fn templates(&self) -> impl Iterator<Item = &Template> {
        let body: Vec<&Template> = match &self.body {
            BodyPlan::None | BodyPlan::Json => Vec::new(),
            BodyPlan::Form(fields) => fields.iter().map(|(_, template)| template).collect(),
            BodyPlan::Text(text) => vec![text],
        };
        let query = self.query.iter().map(|(_, template)| template);
        let headers = self.headers.iter().map(|(_, template)| template);
        query.chain(headers).chain(body).chain([&self.target]).chain(&self.to)
    }

    fn render(&self, facts: &Facts) -> Result<Rendered, Failure> {
        let failed = |error: RenderError| Failure::new(Class::Data, format!("{}: {error}", self.label));
        let render = |template: &Template| template.render(facts).map_err(failed);
        let pairs = |templates: &[(String, Template)]| {
            templates
                .iter()
                .map(|(name, value)| Ok((name.clone(), render(value)?)))
                .collect::<Result<Vec<_>, Failure>>()
        };
        let mut headers = HeaderMap::new();
        for (name, template) in &self.headers {
            headers.insert(name, header_value(name, &render(template)?)?);
        }
        Ok(Rendered {
            target: render(&self.target)?,
            query: pairs(&self.query)?,
            headers,
            body: match &self.body {
                BodyPlan::None => Sent::Nothing,
                BodyPlan::Json => Sent::Json(facts.value.clone()),
                BodyPlan::Form(fields) => Sent::Form(pairs(fields)?),
                BodyPlan::Text(text) => Sent::Text(render(text)?),
            },
            to: self.to.as_ref().map(render).transpose()?,
        })
    }
}

/// A download on its way to its file. The file is made when the first bytes come: an error leaves none.
struct Saved<'a> {
    cx: &'a ItemContext,
    path: &'a str,
    file: Option<OutputFile>,
}

impl Saved<'_> {
    async fn open(&mut self) -> Result<&mut OutputFile, Box<Stop>> {
        if self.file.is_none() {
            self.file = Some(self.cx.run.outputs.create(self.cx, self.path).await?);
        }
        Ok(self.file.as_mut().expect("made above"))
    }

    async fn commit(mut self) -> Result<Value, Box<Stop>> {
        self.open().await?;
        let record = self.file.expect("opened above").commit().await?;
        Ok(serde_json::json!({ "path": record.path, "size": record.bytes, "sha256": record.sha256 }))
    }
}

impl Sink for Saved<'_> {
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            let written = async { self.open().await?.write(bytes.to_vec()).await };
            written.await.map_err(|stop| match *stop {
                Stop::Failed { failure, .. } => failure,
                other => Failure::new(Class::Output, format!("the file could not be written: {other:?}")),
            })
        })
    }
}

/// Runs `work` on a CPU thread.
async fn compute<T: Send + 'static>(
    lost: &Lost,
    cx: &ItemContext,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Box<Stop>> {
    let mut computing = lost.start::<(), T>(cx, move |_| work())?;
    while computing.next().await?.is_some() {}
    Ok(computing.result())
}

fn body_of(sent: &Sent, token: Option<(&str, &str)>) -> Result<Bytes, String> {
    Ok(match sent {
        Sent::Nothing => Bytes::new(),
        Sent::Text(text) => Bytes::copy_from_slice(text.as_bytes()),
        Sent::Json(value) => {
            let bytes = match token {
                None => serde_json::to_vec(&**value),
                Some((field, token)) => {
                    let Value::Object(fields) = &**value else {
                        return Err("the token of the next page is a field of the body, which is no object".to_owned());
                    };
                    let mut fields = fields.clone();
                    fields.insert(field.to_owned(), Value::String(token.to_owned()));
                    serde_json::to_vec(&fields)
                }
            };
            Bytes::from(bytes.map_err(|error| error.to_string())?)
        }
        Sent::Form(fields) => {
            let mut form = String::new();
            let token = token.map(|(field, token)| (field.to_owned(), token.to_owned()));
            let fields = fields.iter().filter(|(name, _)| token.as_ref().is_none_or(|(field, _)| field != name));
            for (name, value) in fields.chain(&token) {
                if !form.is_empty() {
                    form.push('&');
                }
                url::encode_into(&mut form, name);
                form.push('=');
                url::encode_into(&mut form, value);
            }
            Bytes::from(form)
        }
    })
}

/// The item's deadline on the wall clock, RFC 3339.
fn deadline(cx: &ItemContext) -> Option<String> {
    let world: &World = &cx.run.world;
    let left = cx.slot.deadline()?.since(world.boot());
    let at = world.wall().checked_add(left).ok()?;
    Some(at.round(jiff::Unit::Millisecond).unwrap_or(at).to_string())
}

fn ascii(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("letters, digits and punctuation")
}

fn given_up(failure: Failure) -> Box<Stop> {
    Stop::Failed { failure, given_up: true }.into()
}

fn ended(ended: Ended) -> Box<Stop> {
    match ended {
        Ended::Failed(failure) => given_up(failure),
        Ended::Defer { wait, attempts } => Stop::Defer { wait, attempts }.into(),
        Ended::PastDeadline => Stop::PastDeadline.into(),
    }
}
