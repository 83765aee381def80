//! What is known of devices counts as of the log.

use super::{Device, Files, MIDNIGHT, SECOND, readings, settle};
use crate::{
    device::runtime,
    server::{Server, quiver_ok},
};

const GRAPH: &str = r#"
[stream.readings.fields]
n = "int64"
[route.west]
from = "readings"
where = "device.fleet = 'west'"
[lookup.known]
from = "readings"
registry = true
columns = ["fleet"]
[window.fleets]
from = "readings"
size = "1h"
by = ["device.fleet"]
idle = "1h"
select = "count(*) AS rows"
[store.kept]
from = ["west", "known"]
"#;

#[test]
fn a_row_meets_the_attributes_that_were_set_before_it() {
    let files = Files::new(GRAPH);
    let mut server = files.serve(&[]);
    let runtime = runtime();
    let mut n = 0;
    let mut expected = Vec::new();
    let enroll = |server: &Server, fleet: &str| {
        let fleet = format!("fleet={fleet}");
        quiver_ok(&[
            "devices",
            "enroll",
            "a",
            "--attribute",
            &fleet,
            "--data-dir",
            server.data(),
        ]);
    };
    let mut send = |server: &Server, fleet: &str| {
        let rows = (n..n + 5).map(|n| (n, MIDNIGHT + n * SECOND));
        runtime.block_on(async {
            let device = Device::connect(server, "a").await;
            device
                .send("readings", &readings("good", rows.clone()))
                .await;
        });
        n += 5;
        expected.extend(rows.map(|(n, _)| format!("{n},{fleet}")));
    };
    send(&server, "");
    for (number, fleet) in ["west", "east", "west"].into_iter().enumerate() {
        enroll(&server, fleet);
        send(&server, fleet);
        if number == 1 {
            // What is known is there after a kill, too.
            server.kill();
            server.restart();
            send(&server, fleet);
        }
    }
    settle(&server);
    assert_eq!(
        server.sql("SELECT n, fleet FROM known ORDER BY n"),
        expected
    );
    let west: Vec<String> = expected
        .iter()
        .filter_map(|row| row.strip_suffix(",west").map(str::to_owned))
        .collect();
    assert_eq!(west.len(), 10);
    assert_eq!(server.sql("SELECT n FROM west ORDER BY n"), west);
    server.audit();
}
