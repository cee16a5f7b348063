//! The questions, in the SQL of both engines. Every answer is in a defined order, times in microseconds,
//! so that answers can be compared.

use super::Palisade;
use crate::server::Failure;
use palisade_testkit::streamguard::{RATE, START};
use std::path::{Path, PathBuf};

/// Where the table stands in ClickHouse's text.
const TABLE: &str = "{events}";

/// A question.
#[derive(Debug)]
pub(super) struct Question {
    /// Its name in the report.
    pub(super) name: &'static str,
    /// Palisade's text.
    pub(super) sql: String,
    clickhouse: String,
}

impl Question {
    /// ClickHouse's text over these files of one directory.
    pub(super) fn for_clickhouse(&self, files: &[PathBuf]) -> String {
        let quoted = |text: &Path| text.display().to_string().replace('\'', "\\'");
        let names: Vec<String> =
            files.iter().filter_map(|file| Some(quoted(Path::new(file.file_name()?)))).collect();
        let directory =
            files.first().and_then(|file| file.parent()).map(quoted).unwrap_or_default();
        // Braces are alternatives only where there are several.
        let files = match names.as_slice() {
            [only] => format!("{directory}/{only}"),
            several => format!("{directory}/{{{}}}", several.join(",")),
        };
        self.clickhouse.replace(TABLE, &format!("file('{files}', 'Parquet')"))
    }
}

/// A question whose text is the same for both but for the table.
fn same(name: &'static str, sql: &str) -> Question {
    two(name, &sql.replace(TABLE, "events"), sql)
}

fn two(name: &'static str, palisade: &str, clickhouse: &str) -> Question {
    Question { name, sql: palisade.to_owned(), clickhouse: clickhouse.to_owned() }
}

/// The questions about this data: who and when they ask about is looked up first.
pub(super) fn all(palisade: &Palisade, rows: u64) -> Result<Vec<Question>, Failure> {
    let text = |sql: &str, column: &str| -> Result<String, Failure> {
        let answer = palisade.answer(sql)?;
        let value = answer.first().and_then(|row| row.get(column)?.as_str());
        Ok(value.ok_or_else(|| format!("nothing to ask about: no row in {sql}"))?.to_owned())
    };
    let middle = START / 1000 + (rows / 2 / u64::from(RATE)) as i64;
    let (low, high) = (middle * 1_000_000, (middle + 3600) * 1_000_000);
    let id = text(
        &format!(
            "SELECT event_id FROM events WHERE time >= to_timestamp({middle}) \
             AND time < to_timestamp({middle} + 60) ORDER BY position LIMIT 1"
        ),
        "event_id",
    )?;
    let user = text(
        "SELECT \"user\", count(*) FILTER (WHERE anomaly_score >= 0.7) AS anomalies, count(*) AS n \
         FROM events GROUP BY \"user\" ORDER BY anomalies DESC, n DESC, \"user\" LIMIT 1 OFFSET 20",
        "user",
    )?;
    let latest = |micros: &str, condition: &str| {
        format!(
            "SELECT {micros}(time) AS at, event_id, \"user\", type, src_ip, location, \
             anomaly_score FROM {TABLE} {condition} ORDER BY time DESC, position DESC LIMIT 100"
        )
    };
    let newest = |name, condition: &str| {
        two(
            name,
            &latest("to_unixtime_micros", condition)
                .replace("to_unixtime_micros(time)", "CAST(time AS BIGINT)")
                .replace(TABLE, "events"),
            &latest("toUnixTimestamp64Micro", condition),
        )
    };
    Ok(vec![
        two(
            "entropy_p95",
            "SELECT CAST(percentile_cont(0.95) WITHIN GROUP (ORDER BY entropy) AS DOUBLE) AS p95 \
             FROM events",
            "SELECT toFloat64(quantileExactInclusive(0.95)(entropy)) AS p95 FROM {events}",
        ),
        same(
            "top_users_by_failures",
            "SELECT \"user\", count(*) AS failures FROM {events} WHERE type = 'LOGIN_FAILED' \
             GROUP BY \"user\" ORDER BY failures DESC, \"user\" LIMIT 10",
        ),
        newest(
            "anomalies_of_a_user",
            &format!("WHERE \"user\" = '{user}' AND anomaly_score >= 0.7"),
        ),
        two(
            "per_minute_and_type",
            "SELECT CAST(date_trunc('minute', time) AS BIGINT) / 1000000 AS minute, type, \
             count(*) AS n FROM events GROUP BY date_trunc('minute', time), type \
             ORDER BY minute, type",
            "SELECT toUnixTimestamp(toStartOfMinute(time)) AS minute, type, count(*) AS n \
             FROM {events} GROUP BY minute, type ORDER BY minute, type",
        ),
        same(
            "addresses_per_user",
            "SELECT \"user\", count(DISTINCT src_ip) AS addresses FROM {events} \
             GROUP BY \"user\" ORDER BY addresses DESC, \"user\" LIMIT 10",
        ),
        same(
            "ids_per_user",
            "SELECT \"user\", count(DISTINCT event_id) AS ids FROM {events} \
             GROUP BY \"user\" ORDER BY ids DESC, \"user\" LIMIT 10",
        ),
        same(
            "rare_user_agents",
            "SELECT user_agent, count(*) AS n FROM {events} GROUP BY user_agent \
             ORDER BY n, user_agent LIMIT 10",
        ),
        same(
            "point_lookup",
            &format!(
                "SELECT event_id, \"user\", type, src_ip, location FROM {TABLE} \
                 WHERE event_id = '{id}'"
            ),
        ),
        same(
            "substring",
            "SELECT count(*) AS n, count(DISTINCT \"user\") AS users FROM {events} \
             WHERE event_id LIKE '%00042%'",
        ),
        newest("latest_events", ""),
        newest("highest_anomalies", "WHERE anomaly_score >= 0.95"),
        same(
            "bytes_per_user",
            "SELECT \"user\", sum(\"metadata.bytes\") AS bytes, count(*) AS events \
             FROM {events} GROUP BY \"user\" ORDER BY bytes DESC, \"user\" LIMIT 10",
        ),
        two(
            "one_hour",
            &format!(
                "SELECT type, count(*) AS n, avg(threat_score) AS score, \
                 max(\"metadata.bytes\") AS bytes FROM events \
                 WHERE time >= to_timestamp_micros({low}) AND time < to_timestamp_micros({high}) \
                 GROUP BY type ORDER BY type"
            ),
            &format!(
                "SELECT type, count(*) AS n, avg(threat_score) AS score, \
                 max(\"metadata.bytes\") AS bytes FROM {TABLE} \
                 WHERE time >= fromUnixTimestamp64Micro({low}, 'UTC') \
                 AND time < fromUnixTimestamp64Micro({high}, 'UTC') GROUP BY type ORDER BY type"
            ),
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_stand_in_clickhouses_text() {
        let question = same("q", "SELECT 1 FROM {events}");
        assert_eq!(question.sql, "SELECT 1 FROM events");
        let one = question.for_clickhouse(&["/a/1.parquet".into()]);
        assert_eq!(one, "SELECT 1 FROM file('/a/1.parquet', 'Parquet')");
        let two = question.for_clickhouse(&["/a/1.parquet".into(), "/a/2.parquet".into()]);
        assert_eq!(two, "SELECT 1 FROM file('/a/{1.parquet,2.parquet}', 'Parquet')");
    }
}
