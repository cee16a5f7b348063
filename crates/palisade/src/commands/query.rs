//! `palisade query`.

use crate::Outcome;
use crate::client::Client;
use crate::config::Config;
use crate::reload::Source;
use crate::server::{Server, check_data};
use clap::Args;
use std::io::{IsTerminal, Read, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Ask SQL. A running server answers; without one, the data directory is opened for this query.
#[derive(Debug, Args)]
pub(crate) struct Query {
    /// One SELECT (also with WITH), EXPLAIN, SHOW or DESCRIBE; `-` reads it from standard input.
    sql: String,
    /// table, json, json-rows, jsonl, csv or arrow; a table on a terminal and JSON lines in a pipe.
    #[arg(long, short)]
    format: Option<String>,
    /// At most this many rows.
    #[arg(long, value_name = "ROWS")]
    max_rows: Option<usize>,
    /// The server, for example https://siem.example.org.
    #[arg(long, env = "PALISADE_URL")]
    url: Option<String>,
}

impl Query {
    pub(crate) fn run(mut self, config: &Config) -> Outcome {
        if self.sql == "-" {
            self.sql.clear();
            std::io::stdin().take(1 << 20).read_to_string(&mut self.sql)?;
        }
        let client = Client::new(self.url.as_deref(), config);
        if self.url.is_some() || client.is_up() {
            self.ask(&client)?;
            return Ok(ExitCode::SUCCESS);
        }
        check_data(&config.data)?;
        let mut alone = config.clone();
        alone.http.listen = ([127, 0, 0, 1], 0).into();
        alone.http.tls = None;
        alone.listeners.clear();
        let server = Server::start(&alone, Source::only_to_ask())?;
        if !server.engine().wait_visible(Duration::from_secs(600)) {
            return Err("the log could not be read to its end; see `palisade log verify`".into());
        }
        let answer = self.ask(&Client::new(Some(&server.url()), &alone));
        server.stop(Duration::from_secs(60));
        answer?;
        Ok(ExitCode::SUCCESS)
    }

    fn ask(&self, client: &Client) -> Result<(), crate::server::Failure> {
        let terminal = std::io::stdout().is_terminal();
        let format = match &self.format {
            Some(format) => format.as_str(),
            None if terminal => "table",
            None => "jsonl",
        };
        let mut request = serde_json::json!({"sql": self.sql, "format": format});
        if let (Some(rows), Some(object)) = (self.max_rows, request.as_object_mut()) {
            object.insert("max_rows".into(), rows.into());
        }
        let begun = Instant::now();
        let headers = [("content-type", "application/json")];
        let mut answer = client.post("/api/v1/query", &headers, request.to_string().as_bytes())?;
        let mut out = std::io::stdout().lock();
        std::io::copy(&mut answer, &mut out)?;
        out.flush()?;
        if terminal {
            eprintln!("{:.3} s", begun.elapsed().as_secs_f64());
        }
        Ok(())
    }
}
