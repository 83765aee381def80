//! What is said of devices: set, imported, asked for.

use std::{
    fmt::Write as _,
    io::Write as _,
    process::{Output, Stdio},
};

use quiver_client::{Client, Connection};
use serde_json::{Value, json};

use crate::{
    device::{self, numbered},
    http::request,
    server::{Server, binary, quiver, quiver_ok},
};

fn show(server: &Server, id: &str) -> Value {
    let text = quiver_ok(&["devices", "show", id, "--data-dir", server.data()]);
    serde_json::from_str(&text).unwrap()
}

fn devices(server: &Server, arguments: &[&str]) -> Output {
    quiver(&[&["devices"], arguments, &["--data-dir", server.data()]].concat())
}

/// Ids of those that a list has.
fn listed(server: &Server, wanted: &[&str]) -> Vec<String> {
    let list = [
        &["devices", "list", "--json", "--data-dir", server.data()],
        wanted,
    ]
    .concat();
    let entries: Vec<Value> = serde_json::from_str(&quiver_ok(&list)).unwrap();
    let id = |entry: &Value| entry["id"].as_str().unwrap().to_owned();
    entries.iter().map(id).collect()
}

/// Changes of the registry that are in the log.
fn changes(server: &Server) -> u64 {
    server.number("SELECT count(*) FROM quiver_control WHERE kind = 'registry'")
}

#[track_caller]
fn ends(output: &Output, code: i32) -> (String, String) {
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{out}{err}");
    (out, err)
}

#[test]
fn a_set_changes_what_it_names_and_says_whom_it_does_not_know() {
    let server = Server::start(&[]);
    let pinned = "ab".repeat(32);
    let enroll = ["enroll", "truck_1", "--token", "--gateway", "gw_1"];
    let more = ["--fingerprint", &pinned, "--attribute", "fleet=north"];
    let more = [&enroll[..], &more, &["--attribute", "model=tgx"]].concat();
    ends(&devices(&server, &more), 0);
    ends(&devices(&server, &["enroll", "truck_2", "truck_3"]), 0);
    ends(&devices(&server, &["revoke", "truck_3"]), 0);
    let mut expected = show(&server, "truck_1");
    let before = changes(&server);

    let all = ["set", "truck_1", "nobody", "truck_2", "no id", "truck_3"];
    let what = ["--attribute", "fleet=west", "--attribute", "site=Oslo, n=1"];
    let set = [&all[..], &what, &["--remove", "model,color"]].concat();
    let (out, err) = ends(&devices(&server, &set), 65);
    assert_eq!(out, "3 changed, 0 as before, 2 left out\n");
    for part in ["device:nobody is not enrolled", "\"no id\"", "2 of 5"] {
        assert!(err.contains(part), "{part}: {err}");
    }
    let attributes = json!({ "fleet": "west", "site": "Oslo, n=1" });
    expected["attributes"] = attributes.clone();
    assert_eq!(show(&server, "truck_1"), expected, "the rest stays");
    assert_eq!(show(&server, "truck_2")["attributes"], attributes);
    let revoked = show(&server, "truck_3");
    assert_eq!(revoked["attributes"], attributes);
    assert_eq!(revoked["state"], "revoked", "it is not let in again");

    // What is so already is not written again.
    let (out, _) = ends(&devices(&server, &set), 65);
    assert_eq!(out, "0 changed, 3 as before, 2 left out\n");
    assert_eq!(changes(&server), before + 3);

    // Of another kind, and until nothing is left.
    let operator = ["set", "local", "--kind", "operator", "--attribute", "a="];
    ends(
        &devices(&server, &["enroll", "local", "--kind", "operator"]),
        0,
    );
    ends(&devices(&server, &operator), 0);
    ends(
        &devices(&server, &["set", "truck_2", "--remove", "fleet,site"]),
        0,
    );
    assert!(show(&server, "truck_2").get("attributes").is_none());
}

#[test]
fn attributes_that_cannot_be_are_refused_wherever_they_are_said() {
    let server = Server::start(&[]);
    ends(&devices(&server, &["enroll", "d"]), 0);
    let long = format!("a={}", "x".repeat(257));
    for verb in ["set", "enroll"] {
        for (wrong, part) in [
            ("my fleet=x", "must match [A-Za-z_][A-Za-z0-9_]{0,62}"),
            ("fleet", "is not key=value"),
            (&long, "257 bytes, and may have 256"),
        ] {
            let (_, err) = ends(&devices(&server, &[verb, "d", "--attribute", wrong]), 64);
            assert!(err.contains("--attribute") && err.contains(part), "{err}");
        }
        let attribute = |number: u32| [String::from("--attribute"), format!("k{number}=v")];
        let many: Vec<String> = (0..65).flat_map(attribute).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let (_, err) = ends(&devices(&server, &[&[verb, "d"], &many[..]].concat()), 65);
        assert!(err.contains("65 attributes, and may have 64"), "{err}");
    }
    ends(&devices(&server, &["set", "d"]), 64);
    ends(
        &devices(
            &server,
            &["set", "d", "--remove", "a", "--attribute", "a=1"],
        ),
        64,
    );
    assert!(show(&server, "d").get("attributes").is_none());
}

#[test]
fn the_list_is_of_those_that_have_all_of_the_attributes() {
    let server = Server::start(&[]);
    for (id, fleet, site) in [
        ("a", "fleet=west", "site=A+B & C=50% ü"),
        ("b", "fleet=west", "site=a"),
        ("c", "fleet=east", "site=A+B & C=50% ü"),
    ] {
        let enroll = ["enroll", id, "--attribute", fleet, "--attribute", site];
        ends(&devices(&server, &enroll), 0);
    }
    assert_eq!(listed(&server, &["--where", "fleet=west"]), ["a", "b"]);
    let both = ["--where", "fleet=west", "--where", "site=A+B & C=50% ü"];
    assert_eq!(listed(&server, &both), ["a"]);
    assert!(listed(&server, &["--where", "fleet="]).is_empty());
    let (table, _) = ends(&devices(&server, &["list", "--where", "fleet=east"]), 0);
    assert!(table.contains("fleet=east site=A+B & C=50% ü"), "{table}");
    assert!(!table.contains("west"), "{table}");
    ends(&devices(&server, &["list", "--where", "fleet"]), 64);
    // The variable of the flag, one a line.
    let output = std::process::Command::new(binary())
        .args(["devices", "list", "--data-dir", server.data()])
        .env("QUIVER_WHERE", "fleet=west\nsite=a")
        .output();
    let (table, _) = ends(&output.unwrap(), 0);
    assert!(
        table.contains("site=a") && !table.contains("A+B"),
        "{table}"
    );
}

fn import(server: &Server, text: &str, more: &[&str]) -> Output {
    let file = server.path("import.csv");
    std::fs::write(&file, text).unwrap();
    devices(
        server,
        &[&["import", file.to_str().unwrap()], more].concat(),
    )
}

#[test]
fn a_file_is_imported_but_for_the_lines_that_are_wrong() {
    let mut server = Server::start(&[]);
    let enroll = ["enroll", "truck_1", "--attribute", "site=Bergen"];
    let enroll = [&enroll[..], &["--attribute", "color=red", "--token"]].concat();
    ends(&devices(&server, &enroll), 0);
    let token = show(&server, "truck_1")["token_sha256"].clone();
    let pinned = "AB:".repeat(31) + "AB";
    let long = "x".repeat(257);
    let text = format!(
        "\u{feff}id,fleet,kind,gateway,site,fingerprint\r\n\
         truck_1,west,,gw_1,,\r\n\
         truck_2,\"north, \"\"all\"\"\",device,,Oslo,{pinned}\r\n\
         \r\n\
         bad id,west,,,,\r\n\
         truck_3,west\r\n\
         truck_4,west,lorry,,,\r\n\
         truck_5,west,,,,12\r\n\
         truck_6,{long},,,,\r\n\
         truck_7,\"west,,,,\r\n\
         gw_1,,gateway,,Oslo,\r\n\
         truck_8,west,,no gateway,,\r\n"
    );
    let (out, err) = ends(&import(&server, &text, &[]), 65);
    assert_eq!(out, "2 enrolled, 1 changed, 0 as before, 7 left out\n");
    for (line, part) in [
        (5, "bad id"),
        (6, "2 columns, not 6"),
        (7, "lorry"),
        (8, "64 hexadecimal digits"),
        (9, "257 bytes"),
        (10, "does not end"),
        (12, "gateway"),
    ] {
        let line = format!("line {line}: ");
        let told = err.lines().find_map(|told| told.strip_prefix(&line));
        assert!(
            told.is_some_and(|told| told.contains(part)),
            "{line}{part}: {err}"
        );
    }
    assert!(err.contains("7 of 10 lines"), "{err}");

    let check = |server: &Server| {
        let first = show(server, "truck_1");
        let expected = json!({ "fleet": "west", "color": "red" });
        assert_eq!(first["attributes"], expected, "an empty cell removes");
        assert_eq!(first["gateways"], json!(["gw_1"]));
        assert_eq!(first["token_sha256"], token);
        let second = show(server, "truck_2");
        let expected = json!({ "fleet": "north, \"all\"", "site": "Oslo" });
        assert_eq!(second["attributes"], expected);
        assert_eq!(second["fingerprint"], "ab".repeat(32));
        assert_eq!(
            listed(server, &["--where", "site=Oslo"]),
            ["truck_2", "gw_1"]
        );
    };
    check(&server);
    let before = changes(&server);
    let (out, _) = ends(&import(&server, &text, &[]), 65);
    assert_eq!(out, "0 changed, 3 as before, 7 left out\n");
    assert_eq!(changes(&server), before);
    server.kill();
    server.restart();
    check(&server);

    for (wrong, part) in [
        ("", "empty"),
        ("truck_1\n", "names no column id"),
        ("id;fleet\n", "separated by commas"),
        ("id,my fleet\n", "must match"),
        ("id,fleet,fleet\n", "twice"),
    ] {
        let (_, err) = ends(&import(&server, wrong, &[]), 65);
        assert!(err.contains(part), "{part}: {err}");
    }
    ends(&devices(&server, &["import", "no-such.csv"]), 74);
}

#[test]
fn a_large_file_is_imported_in_portions_and_only_known_ones_if_so_wanted() {
    let server = Server::start(&[]);
    let mut text = "id,fleet\n".to_owned();
    for number in 0..5_000 {
        let _ = writeln!(text, "device-{number:06},f{}", number % 10);
    }
    let before = changes(&server);
    let (out, _) = ends(&import(&server, &text, &[]), 0);
    assert_eq!(out, "5,000 enrolled, 0 changed, 0 as before\n");
    assert_eq!(listed(&server, &["--where", "fleet=f3"]).len(), 500);
    let (out, _) = ends(&import(&server, &text, &["--existing-only"]), 0);
    assert_eq!(out, "0 changed, 5,000 as before\n");
    assert_eq!(changes(&server), before + 5_000);

    // From standard input, with some that nobody knows.
    let mut child = std::process::Command::new(binary())
        .args(["devices", "import", "--existing-only", "-"])
        .args(["--data-dir", server.data()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input
        .write_all(b"fleet,id\neast,device-000001\neast,stranger\n,device-000002\n")
        .unwrap();
    drop(input);
    let (out, err) = ends(&child.wait_with_output().unwrap(), 65);
    assert_eq!(out, "2 changed, 0 as before, 1 left out\n");
    assert!(
        err.contains("line 3: device:stranger is not enrolled"),
        "{err}"
    );
    assert_eq!(
        listed(&server, &["--where", "fleet=east"]),
        ["device-000001"]
    );
}

#[test]
fn whoever_is_connected_stays_so_whatever_is_said_of_it() {
    let server = Server::start(&[]);
    ends(&devices(&server, &["enroll", "truck_1"]), 0);
    device::runtime().block_on(async {
        let client: Client = device::connect(&server, "truck_1").await;
        let ended = client.wait_for_status(|status| match &status.connection {
            Connection::Disconnected(reason) => Some(reason.to_string()),
            _ => None,
        });
        let says = async {
            for from in 0..3 {
                let fleet = format!("fleet=f{from}");
                ends(
                    &devices(&server, &["set", "truck_1", "--attribute", &fleet]),
                    0,
                );
                let text = format!("id,gateway,model\ntruck_1,gw_{from},m{from}\n");
                ends(&import(&server, &text, &[]), 0);
                let stream = client.stream("units").unwrap();
                let rows = numbered(from * 10, from * 10 + 10);
                let _handle = stream.send(&rows).await.unwrap();
                client.flush().await.unwrap();
                let expected = json!({ "fleet": format!("f{from}"), "model": format!("m{from}") });
                assert_eq!(show(&server, "truck_1")["attributes"], expected);
            }
        };
        tokio::select! {
            reason = ended => panic!("it was disconnected: {reason}"),
            () = says => {}
        }
    });
    assert_eq!(server.number("SELECT count(*) FROM units"), 30);
}

#[test]
fn over_http_a_set_is_guarded_bounded_and_told_by_place() {
    let server = Server::start(&[]);
    ends(
        &devices(&server, &["enroll", "a", "--attribute", "model=tgx"]),
        0,
    );
    let post = "POST /api/v1/devices/set HTTP/1.1\r\nHost: localhost\r\n";
    let token = format!("Authorization: Bearer {}", server.token());
    let head = format!("{post}{token}\r\nContent-Type: application/json");
    let body = r#"{"identities": [{"id": "b"}, {"id": "a", "attributes": {"fleet": "west", "model": null}},
        {"id": "bad id"}, {"id": "a", "attributes": {"1": "x"}}, {"id": "a", "kind": "lorry"}]}"#;
    assert_eq!(
        request(
            &server,
            &format!("{post}Content-Type: application/json"),
            body
        )
        .0,
        401
    );
    let form = format!("{post}{token}\r\nContent-Type: text/plain");
    assert_eq!(request(&server, &form, body).0, 415);
    let evil = head.replace("localhost", "evil.example");
    assert_eq!(request(&server, &evil, body).0, 421);
    assert_eq!(show(&server, "a")["attributes"], json!({ "model": "tgx" }));

    let (status, answer) = request(&server, &head, body);
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(status, 200, "{answer}");
    let refused = answer["refused"].as_array().unwrap();
    let places: Vec<&Value> = refused.iter().map(|refused| &refused["index"]).collect();
    assert_eq!(places, [0, 2, 3, 4]);
    let counts = ["enrolled", "changed", "unchanged"].map(|count| answer[count].as_u64().unwrap());
    assert_eq!(counts, [0, 1, 0]);
    assert_eq!(show(&server, "a")["attributes"], json!({ "fleet": "west" }));

    let unknown = r#"{"enroll_unknown": true, "identities": [{"id": "b"}]}"#;
    let (status, answer) = request(&server, &head, unknown);
    assert_eq!(status, 200, "{answer}");
    assert!(answer.contains("\"enrolled\":1"), "{answer}");
    let many = vec![r#"{"id":"a"}"#; 10_001].join(",");
    for wrong in [
        format!(r#"{{"identities": [{many}]}}"#),
        r#"{"identities": [{"id": "a", "atributes": {}}]}"#.to_owned(),
        r#"{"identities": [{"id": "a", "attributes": {"n": 1}}]}"#.to_owned(),
    ] {
        assert_eq!(request(&server, &head, &wrong).0, 400);
    }
    // One at once is refused as a whole.
    let enroll = head.replace("/devices/set", "/devices");
    let (status, answer) = request(
        &server,
        &enroll,
        r#"{"id": "c", "attributes": {"a b": ""}}"#,
    );
    assert_eq!(status, 400);
    assert!(answer.contains("a b"), "{answer}");
    assert!(!listed(&server, &[]).contains(&"c".to_owned()));
    let get = |query: &str| {
        let head = format!("GET /api/v1/devices?{query} HTTP/1.1\r\nHost: localhost\r\n{token}");
        request(&server, &head, "")
    };
    assert!(
        get("where=fleet%3Dwest&where=fleet=west")
            .1
            .contains("\"a\"")
    );
    assert_eq!(get("id=a&where=fleet=east"), (200, "[]".to_owned()));
    assert_eq!((get("where=fleet").0, get("were=fleet=west").0), (400, 400));
}

#[test]
fn the_graph_sees_what_is_said_of_a_device_from_its_next_row_on() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("graph.toml");
    let graph = "[stream.units.fields]\nn = { type = \"int64\" }\nvalue = { type = \"float64\" }\n\
        [map.tagged]\nfrom = [\"units\"]\nselect = \"n, device.fleet AS fleet\"\n\
        [store.kept]\nfrom = [\"tagged\"]\n";
    std::fs::write(&config, graph).unwrap();
    let mut server = Server::start(&["--config", config.to_str().unwrap()]);
    ends(&devices(&server, &["enroll", "truck_1"]), 0);
    let credential = server.issue("device", "truck_1", &[]);
    let send = |server: &Server, says: &[&dyn Fn()], from: i64| {
        device::runtime().block_on(async {
            let options = device::options(server, &credential);
            let client = Client::connect(options).await.unwrap();
            let stream = client.stream("units").unwrap();
            for (part, say) in says.iter().enumerate() {
                say();
                let from = from + part as i64 * 10;
                let rows = numbered(from, from + 10);
                let _handle = stream.send(&rows).await.unwrap();
                client.flush().await.unwrap();
            }
            client.close().await;
        });
    };
    let set = |what: &[&str]| {
        ends(&devices(&server, &[&["set", "truck_1"], what].concat()), 0);
    };
    let file = || {
        ends(&import(&server, "id,fleet\ntruck_1,east\n", &[]), 0);
    };
    send(
        &server,
        &[
            &|| (),
            &|| set(&["--attribute", "fleet=west"]),
            &file,
            &|| set(&["--remove", "fleet"]),
            &|| set(&["--attribute", "fleet=west"]),
        ],
        0,
    );
    let tagged = |server: &Server, count: u64| {
        let begun = std::time::Instant::now();
        while server.number("SELECT count(*) FROM tagged") < count {
            assert!(begun.elapsed().as_secs() < 30, "the graph is late");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        server.sql("SELECT min(n), fleet, count(*) FROM tagged GROUP BY n / 10, fleet ORDER BY 1")
    };
    let mut expected = vec!["0,,10", "10,west,10", "20,east,10", "30,,10", "40,west,10"];
    assert_eq!(tagged(&server, 50), expected);
    // And after a restart.
    server.kill();
    server.restart();
    send(&server, &[&|| ()], 50);
    expected.push("50,west,10");
    assert_eq!(tagged(&server, 60), expected);
}
