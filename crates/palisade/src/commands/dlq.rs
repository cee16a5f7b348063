//! `palisade dlq list|show|retry|drop`.

use crate::Outcome;
use crate::client::Client;
use crate::config::Config;
use crate::server::Failure;
use clap::{Args, Subcommand};
use serde::Deserialize;
use std::io::Read;
use std::process::ExitCode;

/// Look at dead letters: records that could not be taken, with their bytes and the reason. Talks to
/// the running server; the key needs the scope admin.
#[derive(Debug, Args)]
pub(crate) struct Dlq {
    #[command(subcommand)]
    verb: Verb,
    /// The server, for example https://siem.example.org.
    #[arg(long, env = "PALISADE_URL", global = true)]
    url: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the newest.
    List {
        /// How many.
        #[arg(long, default_value_t = 20)]
        limit: u32,
    },
    /// Show one with its bytes.
    Show {
        /// Its id, as listed.
        id: String,
    },
    /// Send one through the decoders again; its id is the idempotency key, so it can't double.
    Retry {
        /// Its id, as listed.
        id: String,
    },
    /// Say that one needs no more attention. Its bytes stay until retention.
    Drop {
        /// Its id, as listed.
        id: String,
    },
}

/// The longest answer that is read.
const MOST: u64 = 64 << 20;

impl Dlq {
    pub(crate) fn run(self, config: &Config) -> Outcome {
        let client = Client::new(self.url.as_deref(), config);
        let base = "/api/v1/dead-letters";
        let mut text = String::new();
        match &self.verb {
            Verb::List { limit } => {
                client
                    .get(&format!("{base}?limit={limit}"))?
                    .take(MOST)
                    .read_to_string(&mut text)?;
                show_list(&text)?;
                return Ok(ExitCode::SUCCESS);
            }
            Verb::Show { id } => {
                Box::new(client.get(&format!("{base}/{}", checked(id)?))?) as Box<dyn Read>
            }
            Verb::Retry { id } => {
                Box::new(client.post(&format!("{base}/{}/retry", checked(id)?), &[], b"")?)
            }
            Verb::Drop { id } => {
                Box::new(client.post(&format!("{base}/{}/drop", checked(id)?), &[], b"")?)
            }
        }
        .take(MOST)
        .read_to_string(&mut text)?;
        println!("{text}");
        Ok(ExitCode::SUCCESS)
    }
}

/// Ids are 32 hexadecimal digits; anything else must not reach a path.
fn checked(id: &str) -> Result<&str, String> {
    if id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(id)
    } else {
        Err(format!("'{id}' is no dead letter's id; `palisade dlq list` shows them"))
    }
}

/// A page of letters as the server gives it (`/api/v1/dead-letters`).
#[derive(Debug, Deserialize)]
struct Page {
    letters: Vec<Letter>,
    /// The cursor of the next page.
    next: Option<String>,
}

/// What is shown of a letter.
#[derive(Debug, Deserialize)]
struct Letter {
    dead_letter_id: String,
    time: String,
    state: String,
    source: String,
    reason: String,
}

fn show_list(text: &str) -> Result<(), Failure> {
    let page: Page = serde_json::from_str(text)
        .map_err(|error| format!("the server's answer is not understood: {error}"))?;
    println!("{:<32}  {:<27} {:<9} {:<16} REASON", "ID", "TIME", "STATE", "SOURCE");
    for Letter { dead_letter_id, time, state, source, reason } in &page.letters {
        println!("{dead_letter_id:<32}  {time:<27} {state:<9} {source:<16} {reason}");
    }
    if page.next.is_some() {
        eprintln!("There are more; --limit shows up to 1000.");
    }
    Ok(())
}
