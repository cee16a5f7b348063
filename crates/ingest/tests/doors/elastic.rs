//! Elasticsearch's interface.

use crate::recorder::{Server, call, server};
use palisade_ingest::body::BodyLimits;
use palisade_ingest::submit::{Body, SubmitError};
use serde_json::json;

async fn open() -> Server {
    server(true, BodyLimits::default()).await
}

#[tokio::test]
async fn clients_find_what_they_ask_for_first() {
    let server = open().await;
    let get = async |method: &'static str, path: &'static str| {
        let answer = call(server.address, method, path, &[], b"").await;
        assert_eq!(answer.header("x-elastic-product").as_deref(), Some("Elasticsearch"), "{path}");
        answer
    };
    let info = get("GET", "/").await;
    assert_eq!(info.json()["tagline"], "You Know, for Search");
    assert!(info.json()["version"]["number"].as_str().unwrap().starts_with("8."));
    assert_eq!(get("HEAD", "/").await.status, 200);
    assert_eq!(get("GET", "/_license").await.json()["license"]["type"], "basic");
    assert_eq!(get("GET", "/_xpack").await.json()["features"]["ilm"]["enabled"], true);
    assert_eq!(get("GET", "/_nodes/http").await.status, 200);
    assert_eq!(get("GET", "/_cluster/health").await.json()["status"], "green");
    assert_eq!(get("GET", "/_cat/indices?format=json").await.json(), json!([]));
    for thing in [
        "/_index_template/filebeat",
        "/_template/filebeat",
        "/_component_template/x",
        "/_ilm/policy/x",
        "/_ingest/pipeline/x",
        "/_data_stream/x",
        "/_alias/x",
    ] {
        assert_eq!(get("GET", thing).await.status, 404, "{thing}");
        assert_eq!(get("HEAD", thing).await.status, 404, "{thing}");
        assert_eq!(get("PUT", thing).await.json(), json!({"acknowledged": true}), "{thing}");
    }
    assert_eq!(get("HEAD", "/logs").await.status, 404);
    assert_eq!(get("PUT", "/logs").await.json()["acknowledged"], true);
    assert_eq!(get("PUT", "/Logs").await.status, 400);
    let unknown = get("GET", "/_sql/what/ever").await;
    assert_eq!(unknown.status, 400);
    assert!(unknown.json()["error"].as_str().unwrap().contains("no handler found"));
}

#[tokio::test]
async fn bulk_answers_every_item() {
    let server = open().await;
    let body = "{\"index\":{\"_index\":\"web\",\"_id\":\"1\"}}\n{\"a\":1}\n{\"create\":{}}\n{\"a\":2}\n{\"create\":{}}\n{broken\n{\"delete\":{\"_id\":\"1\"}}\n";
    let kind = "application/vnd.elasticsearch+json; compatible-with=8";
    let headers = [("Content-Type", "application/x-ndjson"), ("Accept", kind)];
    let answer = call(server.address, "POST", "/logs/_bulk", &headers, body.as_bytes()).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type").as_deref(), Some(kind));
    let json = answer.json();
    assert_eq!(json["errors"], true);
    let statuses: Vec<_> = json["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item.as_object().unwrap().iter().next().unwrap())
        .map(|(action, item)| (action.as_str(), item["status"].as_u64().unwrap()))
        .collect();
    assert_eq!(statuses, [("index", 201), ("create", 201), ("create", 400), ("delete", 400)]);
    let taken = server.recorder.taken.lock().unwrap().clone();
    let sources: Vec<_> = taken.iter().map(|submission| submission.source.as_ref()).collect();
    assert_eq!(sources, ["elastic:web", "elastic:logs"]);
    let Body::BulkItems { items, .. } = &taken[0].body else { panic!("{:?}", taken[0].body) };
    assert_eq!(items[0].id.as_deref(), Some("1"));
    let door = server.metrics.door("bulk");
    assert_eq!((door.records.get(), door.refused_records.get()), (2, 2));
}

#[tokio::test]
async fn malformed_requests_are_refused_whole() {
    let server = open().await;
    for (body, words) in [
        ("", "request body is required"),
        ("{\"index\":{\"_index\":\"a\"}}\n{}", "terminated by a newline"),
        (
            "{\"index\":{\"_index\":\"a\"}}\n{}\n{\"index\":{\"_index\":\"a\"}}\n",
            "no document line",
        ),
        ("{\"index\":{}}\n{}\n", "index is missing"),
        ("{\"a\":1}\n{\"a\":2}\n", "found [a]"),
    ] {
        let answer = call(server.address, "POST", "/_bulk", &[], body.as_bytes()).await;
        assert_eq!(answer.status, 400, "{body}");
        let json = answer.json();
        assert!(json["error"]["reason"].as_str().unwrap().contains(words), "{json}");
        assert_eq!(json["status"], 400);
    }
    assert_eq!(server.recorder.count(), 0);
}

#[tokio::test]
async fn a_busy_server_says_429_for_the_whole_or_for_its_part() {
    let server = open().await;
    let one = b"{\"index\":{\"_index\":\"a\"}}\n{}\n";
    for error in [SubmitError::Busy { retry_after_ms: 100 }, SubmitError::DiskLow] {
        server.recorder.fail([error]);
        let answer = call(server.address, "POST", "/_bulk", &[], one).await;
        assert_eq!(answer.status, 429);
        assert!(answer.header("retry-after").is_some());
        assert_eq!(answer.json()["status"], 429);
    }
    server.recorder.fail([SubmitError::Busy { retry_after_ms: 100 }]);
    let two = b"{\"index\":{\"_index\":\"a\"}}\n{}\n{\"index\":{\"_index\":\"b\"}}\n{}\n";
    let answer = call(server.address, "POST", "/_bulk", &[], two).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["items"][0]["index"]["status"], 429);
    assert_eq!(answer.json()["items"][1]["index"]["status"], 201);
}

#[tokio::test]
async fn single_documents_and_keys() {
    let server = server(false, BodyLimits::default()).await;
    let key = [("Authorization", "ApiKey Z29vZDpzZWNyZXQ=")];
    let answer = call(server.address, "PUT", "/logs/_doc/7", &key, b"{\"a\":1}").await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.json()["_id"], "7");
    let answer = call(server.address, "POST", "/logs/_doc", &key, b"[]").await;
    assert_eq!(answer.status, 400);
    assert_eq!(call(server.address, "POST", "/logs/_doc", &[], b"{}").await.status, 401);
    let answer = call(server.address, "GET", "/", &[], b"").await;
    assert_eq!(answer.status, 401);
    assert!(answer.header("www-authenticate").is_some());
    assert_eq!(answer.json()["error"]["type"], "security_exception");
    assert_eq!(server.recorder.last().tenant.as_str(), "acme");
}
