//! A peer of the daemon bench: tokio-cron-scheduler over a crontab whose lines begin with seconds.

use tokio_cron_scheduler::{Job, JobScheduler};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("the path of a crontab")?;
    let jobs = JobScheduler::new().await?;
    for line in std::fs::read_to_string(path)?.lines() {
        let mut fields = line.splitn(7, ' ');
        let times: Vec<&str> = fields.by_ref().take(6).collect();
        let command = fields.next().unwrap_or_default().to_owned();
        let job = Job::new_async(times.join(" ").as_str(), move |_, _| {
            let command = command.clone();
            Box::pin(async move {
                let _ = tokio::process::Command::new("sh").args(["-c", &command]).status().await;
            })
        })?;
        jobs.add(job).await?;
    }
    jobs.start().await?;
    std::future::pending().await
}
