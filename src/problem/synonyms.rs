//! What people call a field or a kind who know other schedulers, cron, shells and HTTP clients. Asked before the nearest
//! name: `cmd` is no misspelt `cwd`.

/// As it is called elsewhere, and what it may be here: the first that exists in the place is meant.
const FIELDS: [(&[&str], &[&str]); 27] = [
    (&["cron", "crontab", "when", "trigger", "on", "at", "every"], &["schedule"]),
    (&["tz", "zone", "time_zone"], &["timezone"]),
    (&["title", "comment", "summary", "about", "doc", "desc"], &["description"]),
    (&["max_runtime", "max_duration", "ttl", "time_limit", "timeout"], &["timeout", "deadline"]),
    (&["steps", "tasks", "pipeline", "phases"], &["stages"]),
    (&["actions", "do", "exec", "action", "step"], &["run"]),
    (&["command", "cmd", "args", "program", "arguments", "exec"], &["argv"]),
    (&["script", "shell", "bash"], &["sh"]),
    (&["environment", "env_vars", "variables", "vars"], &["env", "params"]),
    (&["parameters", "config", "settings"], &["params", "query"]),
    (&["dir", "directory", "workdir", "working_dir", "working_directory"], &["cwd"]),
    (&["input", "stdin_text"], &["stdin", "from"]),
    (&["exit_codes", "ok_codes"], &["success_codes"]),
    (&["parallel", "parallelism", "concurrency", "threads", "max_parallel"], &["workers", "max_in_flight"]),
    (&["depends_on", "needs", "after", "inputs", "reads", "source"], &["from"]),
    (&["retries", "max_retries", "attempts", "tries", "retry_limit"], &["retry", "max_attempts"]),
    (&["backoff", "delay", "interval", "wait"], &["initial_interval"]),
    (&["max_backoff", "max_delay"], &["max_interval"]),
    (&["max_failures", "allowed_failures", "error_threshold", "ignore_errors"], &["tolerate"]),
    (&["healthcheck", "heartbeat", "ping_url", "dead_man", "monitor"], &["ping"]),
    (&["on_failure", "on_error", "notify", "mailto", "email", "alert", "on_success", "hooks"], &["on_finish"]),
    (&["url", "uri", "host", "endpoint", "address", "base_url"], &["base", "get"]),
    (&["path", "method"], &["get"]),
    (&["service", "client", "use"], &["via"]),
    (&["data", "payload", "json"], &["body"]),
    (&["rate_limit", "throttle", "limit"], &["rate"]),
    (&["query", "expr", "expression", "code", "program"], &["filter"]),
];

/// The same for kinds.
const KINDS: [(&[&str], &[&str]); 19] = [
    (&["Shell", "Command", "Run", "Script", "Bash", "Sh", "Cmd", "Program", "Process"], &["Exec"]),
    (&["Get", "Post", "Fetch", "Request", "Curl", "Rest", "Api", "Download", "Webhook"], &["Http"]),
    (&["Filter", "Transform", "Map", "Select", "Compute", "Eval"], &["Jq"]),
    (&["List", "ForEach", "Foreach", "Each", "Matrix", "Range"], &["Items"]),
    (&["Csv", "Glob", "File", "Files", "Lines", "Input", "Load"], &["Read"]),
    (&["Save", "Output", "Store", "WriteFile"], &["Write"]),
    (&["Template", "Page", "Format"], &["Render"]),
    (&["Handler", "Function", "Fn", "Rust"], &["Call"]),
    (&["Print", "Echo", "Message"], &["Log"]),
    (&["Interval", "Rate", "Repeat"], &["Every"]),
    (&["Daily", "Hourly", "Weekly", "Monthly", "Crontab", "Calendar", "OnCalendar"], &["Cron"]),
    (&["Once", "Date", "On"], &["At"]),
    (&["Reboot", "Boot", "Startup"], &["OnBoot"]),
    (&["DependsOn", "Job", "OnSuccess", "Upstream"], &["After"]),
    (&["Never", "Disabled", "Off", "Null"], &["Manual", "Never"]),
    (&["Last", "Once", "Newest"], &["Latest"]),
    (&["Token", "ApiKey", "Jwt"], &["Bearer"]),
    (&["Success", "Ok", "Done"], &["Succeeded"]),
    (&["Timeout", "TimedOut"], &["DeadlineExceeded"]),
];

/// The field of these that is called `written` elsewhere.
pub(super) fn field<'a>(written: &str, fields: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    meant(&FIELDS, &written.to_ascii_lowercase().replace('-', "_"), fields)
}

/// The kind of these that is called `written` elsewhere.
pub(super) fn kind<'a>(written: &str, kinds: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    let mut letters = written.chars();
    let capital: String = letters.next().iter().flat_map(|c| c.to_uppercase()).chain(letters).collect();
    meant(&KINDS, &capital, kinds)
}

fn meant<'a>(
    table: &[(&[&str], &[&str])],
    written: &str,
    names: impl Iterator<Item = &'a str> + Clone,
) -> Option<&'a str> {
    let rows = table.iter().filter(|(elsewhere, _)| elsewhere.contains(&written));
    rows.flat_map(|(_, here)| here.iter()).find_map(|here| names.clone().find(|name| name == here))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_exists_in_the_place_is_meant() {
        let stage = ["name", "from", "workers", "timeout"];
        assert_eq!(field("concurrency", stage.into_iter()), Some("workers"));
        assert_eq!(field("depends-on", stage.into_iter()), Some("from"));
        assert_eq!(field("url", stage.into_iter()), None);
        assert_eq!(field("url", ["get", "post"].into_iter()), Some("get"));
        assert_eq!(kind("shell", ["Exec", "Http"].into_iter()), Some("Exec"));
        assert_eq!(kind("", ["Exec"].into_iter()), None);
    }
}
