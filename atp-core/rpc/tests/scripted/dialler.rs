//! A way that the program opens itself.

use std::io;
use std::sync::{Arc, Mutex};

use atp_rpc::{ConnectFailure, ConnectOptions, Connection, Dialler, Stage};
use tokio::io::duplex;

use crate::daemon::Daemon;

#[tokio::test(start_paused = true)]
async fn a_connection_is_opened_over_the_stream_of_a_dialler() {
    let (ours, theirs) = duplex(64 * 1024);
    let (streams, asked) = (Arc::new(Mutex::new(vec![ours])), Arc::new(Mutex::new(Vec::new())));
    let seen = asked.clone();
    let dialler = Dialler::new(move |uri| {
        seen.lock().unwrap().push(uri.host.clone());
        let stream = streams.lock().unwrap().pop();
        async move { stream.ok_or_else(|| io::ErrorKind::ConnectionRefused.into()) }
    });
    let options = ConnectOptions { dialler: Some(dialler), ..ConnectOptions::default() };
    let mut daemon = Daemon::new(theirs);
    let uri = "test+tcp://no-such-host.invalid/default";
    let (connection, ()) = tokio::join!(Connection::open(uri, &options), daemon.greet());
    assert!(connection.unwrap().is_open());
    assert_eq!(*asked.lock().unwrap(), [Some("no-such-host.invalid".to_owned())]);

    let error = Connection::open(uri, &options).await.unwrap_err();
    let refused = |source: &io::Error| source.kind() == io::ErrorKind::ConnectionRefused;
    assert!(matches!(&error.failure, ConnectFailure::Dial { source, .. } if refused(source)), "{error:?}");
    assert_eq!(error.stage, Stage::Dial);
}
