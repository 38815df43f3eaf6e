//! What authors write about a call.

use super::super::Place;
use crate::{problem::UniqueMap, units::Span};
use hyper::Method;

crate::spec! {
    /// Asks an HTTP service and gives the decoded body; with `pages` each element of each page, with `to` what was saved.
    pub struct HttpSpec as "Http" {
        /// The service that the call goes through. Without it the URL is absolute and written out.
        via: Option<String>, example "\"vendor\"";
        /// Path of a GET below the service's base.
        get: Option<String>, example "\"/v1/patients/{{ item.id }}/vitals\"";
        /// Path of a POST.
        post: Option<String>, example "\"/v1/acks\"";
        /// Path of a PUT.
        put: Option<String>, example "\"/v1/patients/{{ item.id }}\"";
        /// Path of a PATCH.
        patch: Option<String>, example "\"/v1/patients/{{ item.id }}\"";
        /// Path of a DELETE.
        delete: Option<String>, example "\"/v1/sessions/{{ item.id }}\"";
        /// Path of a HEAD.
        head: Option<String>, example "\"/files/{{ item.name }}\"";
        /// Added to the path, percent-encoded.
        query: Option<UniqueMap<String>>, example "{ \"date\": \"{{ run.night }}\" }";
        /// Sent with this call; they win over the service's.
        headers: Option<UniqueMap<String>>, example "{ \"Accept\": \"text/csv\" }";
        /// What is sent.
        body: Option<BodySpec>, example "Json";
        /// Of one call, instead of the service's.
        timeout: Option<Span>, example "\"10s\"";
        /// How one page leads to the next.
        pages: Option<PagesSpec>, example "Cursor(items: \".data\", next: \".next_cursor\", param: \"cursor\")";
        /// More pages than this are an error.
        max_pages: Option<u32>, default "10000", example "50";
        /// File below the output folder that the body is saved to.
        to: Option<String>, example "\"{{ run.date }}/{{ item.name }}\"";
        /// jq: true ends the item `empty`.
        empty_if: Option<String>, example "\"$response.status == 404\"";
        /// jq: true is a failure that is tried again.
        retry_if: Option<String>, example "\".status? == 601\"";
        /// jq: true is a failure that is not tried again.
        fail_if: Option<String>, example "\".error? != null\"";
        /// Puts what it gives into this field of the value: a list with `pages`, else the value.
        into: Option<String>, example "\"pages\"";
    }
}

crate::choice! {
    /// What a call sends.
    pub enum BodySpec as "Body" {
        /// The current value, as JSON.
        Json,
        /// Fields, as a form.
        Form(UniqueMap<String>) example "Form({\"user\": \"{{ item.id }}\"})",
        /// A text.
        Text(String) example "Text(\"{{ value }}\")",
    }
}

crate::choice! {
    /// How one page leads to the next.
    pub enum PagesSpec as "Pages" {
        /// The answer names the next page, the query asks for it.
        Cursor { CursorSpec } example "Cursor(items: \".data\", next: \".next_cursor\", param: \"cursor\")",
        /// The header `Link` has the next page (`rel="next"`).
        Link { LinkSpec } example "Link(items: \".\")",
        /// The answer names the next page, a field of the sent body asks for it.
        BodyToken { BodyTokenSpec } example "BodyToken(items: \".points\", next: \".nextPageToken\", field: \"pageToken\")",
        /// The query says how many elements were seen.
        Offset { OffsetSpec } example "Offset(items: \".records\", param: \"offset\", size: 100)",
    }
}

crate::spec! {
    /// The answer names the next page, the query asks for it.
    pub struct CursorSpec as "Cursor" {
        /// jq: the elements of a page.
        items: String, example "\".data\"";
        /// jq: what names the next page; null, absent or "" ends.
        next: String, example "\".next_cursor\"";
        /// Its name in the query.
        param: String, example "\"cursor\"";
    }
}

crate::spec! {
    /// The header `Link` has the next page (`rel="next"`).
    pub struct LinkSpec as "Link" {
        /// jq: the elements of a page.
        items: String, example "\".\"";
    }
}

crate::spec! {
    /// The answer names the next page, a field of the sent body asks for it.
    pub struct BodyTokenSpec as "BodyToken" {
        /// jq: the elements of a page.
        items: String, example "\".points\"";
        /// jq: what names the next page; null, absent or "" ends.
        next: String, example "\".nextPageToken\"";
        /// Its name in the body.
        field: String, example "\"pageToken\"";
    }
}

crate::spec! {
    /// The query says how many elements were seen.
    pub struct OffsetSpec as "Offset" {
        /// jq: the elements of a page.
        items: String, example "\".records\"";
        /// Its name in the query.
        param: String, example "\"offset\"";
        /// Elements of a full page; one with fewer is the last. Ask for as many in `query`.
        size: u32, example "100";
    }
}

impl HttpSpec {
    /// The method and path that were written, with the name of the field: `None` unless exactly one was.
    pub(super) fn method(&self) -> Option<(Method, &'static str, &str)> {
        let all = [
            (Method::GET, "get", &self.get),
            (Method::POST, "post", &self.post),
            (Method::PUT, "put", &self.put),
            (Method::PATCH, "patch", &self.patch),
            (Method::DELETE, "delete", &self.delete),
            (Method::HEAD, "head", &self.head),
        ];
        let mut written = all.into_iter().filter_map(|(method, field, path)| Some((method, field, path.as_deref()?)));
        written.next().filter(|_| written.next().is_none())
    }

    /// The service named by `via`, or the one that is most like it.
    pub(super) fn unknown_service(&self, place: &Place<'_>) -> Option<String> {
        let via = self.via.as_ref()?;
        if place.services.contains(via) {
            return None;
        }
        Some(match crate::problem::closest(via, place.services.iter().map(String::as_str)) {
            Some(name) => format!("did you mean {name:?}?"),
            None if place.services.is_empty() => {
                format!("add `services: [Service(name: {via:?}, base: \"https://..\")]`")
            }
            None => format!(
                "there are {}",
                place.services.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
            ),
        })
    }
}
