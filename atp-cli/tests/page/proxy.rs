//! A proxy between the browser and the service, whose connections can be cut.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub(crate) struct Proxy {
    pub(crate) address: String,
    cuts: watch::Sender<()>,
    /// What the browser has sent.
    sent: Arc<Mutex<String>>,
}

impl Proxy {
    /// Listens for connections to the service at this address.
    pub(crate) async fn start(address: &str) -> Self {
        let service = address.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (cuts, cut) = watch::channel(());
        let sent = Arc::new(Mutex::new(String::new()));
        let all = sent.clone();
        tokio::spawn(async move {
            while let Ok((browser, _)) = listener.accept().await {
                let (service, mut cut, sent) = (service.clone(), cut.clone(), all.clone());
                cut.mark_unchanged();
                tokio::spawn(async move {
                    tokio::select! {
                        () = pass(browser, &service, &sent) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Proxy { address, cuts, sent }
    }

    /// Cuts all connections.
    pub(crate) fn cut(&self) {
        self.cuts.send_replace(());
    }

    /// Whether a request for this path has continued after an event.
    pub(crate) fn resumed(&self, path: &str) -> bool {
        let sent = self.sent.lock();
        let mut requests = sent.split("\r\n\r\n").filter(|request| request.contains(&format!("GET {path} ")));
        requests.any(|request| request.to_ascii_lowercase().contains("last-event-id: "))
    }
}

async fn pass(browser: TcpStream, service: &str, sent: &Mutex<String>) {
    let Ok(service) = TcpStream::connect(service).await else { return };
    let (mut from_browser, mut to_browser) = browser.into_split();
    let (mut from_service, mut to_service) = service.into_split();
    let requests = async {
        let mut bytes = vec![0; 16 << 10];
        while let Ok(count @ 1..) = from_browser.read(&mut bytes).await {
            sent.lock().push_str(&String::from_utf8_lossy(&bytes[..count]));
            if to_service.write_all(&bytes[..count]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = requests => {}
        _ = copy(&mut from_service, &mut to_browser) => {}
    }
}
