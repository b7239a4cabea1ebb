//! Clients that ask all nodes at once, and the book of what they were given.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use casemate_api::{Outcome as Said, STAMP_HEADER, route};
use casemate_client::credential::stamp;
use casemate_client::{Asked, Client, ClientError, Credential, Outcome, SignOptions, Unsettled};
use casemate_dev::processes::birth::now;
use casemate_door::Answer;
use casemate_proto::request::SignRequest;
use casemate_proto::stamp::Method;
use casemate_proto::{CredentialId, DenialCode, Millis, RequestId};
use tokio::task::JoinHandle;

use crate::field::{Field, LIMIT, PATIENCE, client};

/// Clients that have reports signed, and such as pay.
const NOTARIES: usize = 2;
const PAYERS: usize = 2;
/// How long a client waits between two requests.
const BETWEEN: Duration = Duration::from_millis(80);

/// How long one request is asked for before it is left for later.
const ONE_REQUEST: Duration = Duration::from_secs(15);

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Signed, with its receipt.
    Signed(Vec<u8>),
    /// Denied or expired for good.
    Denied(DenialCode),
    /// Signed, as nodes say that no longer have the record at hand.
    InStore,
    /// Nobody knows yet.
    Open,
}

/// A request and what came of it.
#[derive(Clone, Debug)]
pub struct Given {
    pub request: SignRequest,
    /// What it pays, in USDT; 0 for a report.
    pub usdt: u64,
    pub fate: Fate,
}

/// Everything that was asked for.
#[derive(Clone, Debug, Default)]
pub struct Book(Arc<Mutex<BTreeMap<(CredentialId, RequestId), Given>>>);

impl Book {
    fn put(&self, credential: &Credential, request: &SignRequest, usdt: u64, fate: Fate) {
        let key = (credential.id(), request.request_id);
        let given = Given { request: request.clone(), usdt, fate };
        let mut book = self.0.lock().unwrap();
        match book.get(&key).map(|before| &before.fate) {
            // one id, one outcome, at whatever node and however often
            Some(before @ (Fate::Signed(_) | Fate::Denied(_))) => {
                let is_none = matches!(given.fate, Fate::Open | Fate::InStore);
                assert!(is_none || *before == given.fate, "{before:?}, and then {given:?}");
            }
            _ => drop(book.insert(key, given)),
        }
    }
    pub fn all(&self) -> BTreeMap<(CredentialId, RequestId), Given> {
        self.0.lock().unwrap().clone()
    }
    /// How many have been signed so far.
    pub fn signed(&self) -> usize {
        self.0.lock().unwrap().values().filter(|g| matches!(g.fate, Fate::Signed(_))).count()
    }
}

/// Clients at work.
pub struct Load {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Field {
    fn who(&self, request: &SignRequest) -> Credential {
        self.credential(match request.key.as_str() {
            "notary" => "workflow:reports",
            _ => "workflow:settlement",
        })
    }

    /// Sets clients to work, on the paths of a round.
    pub fn load(&self, round: u32) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = Vec::new();
        for number in 0..NOTARIES + PAYERS {
            let (client, book, stop) = (client(&self.file), self.book.clone(), Arc::clone(&stop));
            let pays = number >= NOTARIES;
            let request = move |field_round: u32, turn: u64| {
                if pays {
                    let usdt = turn % 7 + 1;
                    (Self::payment(field_round, usdt), usdt)
                } else {
                    (Self::report(field_round), 0)
                }
            };
            let credential = self.who(&request(round, 0).0);
            tasks.push(self.runtime.spawn(async move {
                let mut turn = 0;
                while !stop.load(Ordering::Relaxed) {
                    let (request, usdt) = request(round, turn);
                    turn += 1;
                    book.put(&credential, &request, usdt, Fate::Open);
                    let fate = ask(&client, &credential, &request, ONE_REQUEST).await;
                    // what is used up is asked for less often
                    let denied = matches!(fate, Fate::Denied(_));
                    book.put(&credential, &request, usdt, fate);
                    tokio::time::sleep(if denied { BETWEEN * 10 } else { BETWEEN }).await;
                }
            }));
        }
        Load { stop, tasks }
    }

    /// Asks whoever will sign. Whether somebody has.
    pub fn sign(&self, request: &SignRequest) -> bool {
        let credential = self.who(request);
        let one = client(&self.file);
        let fate = self.runtime.block_on(ask(&one, &credential, request, ONE_REQUEST));
        let signed = matches!(fate, Fate::Signed(_));
        self.book.put(&credential, request, 0, fate);
        signed
    }

    /// Asks one node once. Whether it has signed.
    pub fn ask(&self, node: usize, request: &SignRequest) -> bool {
        let credential = self.who(request);
        let body = request.to_body().into_bytes();
        let stamp =
            stamp(&credential, self.scope(), Method::CreateRequest, &body, now(), Millis(60_000));
        let header = (STAMP_HEADER, stamp.unwrap().to_header());
        let api = self.api(node);
        let post = async {
            let post = api.post(route::REQUESTS, header, body);
            tokio::time::timeout(Duration::from_secs(8), post).await
        };
        let fate = match self.runtime.block_on(post) {
            Ok(Ok(Said::Answer(Answer::Signed(signed)))) => Fate::Signed(signed.signature),
            _ => Fate::Open,
        };
        let signed = fate != Fate::Open;
        self.book.put(&credential, request, 0, fate);
        signed
    }

    /// Pays on a round's path until nothing is left of its limit.
    pub fn squeeze(&self, round: u32) {
        let one = client(&self.file);
        let (mut usdt, mut tries) = (7, 0);
        while usdt > 0 {
            let payment = Self::payment(round, usdt);
            let credential = self.who(&payment);
            let fate = self.runtime.block_on(ask(&one, &credential, &payment, PATIENCE));
            self.book.put(&credential, &payment, usdt, fate.clone());
            match fate {
                Fate::Denied(DenialCode::LimitExceeded) => usdt /= 2,
                _ => tries += 1,
            }
            assert!(tries <= LIMIT, "more than the limit was signed");
        }
    }

    /// Asks again for everything that is open, until it is settled.
    pub fn settle(&self) {
        let open = self.book.all().into_values().filter(|given| given.fate == Fate::Open);
        let one = client(&self.file);
        let again: Vec<_> = open
            .map(|given| {
                let (one, book, who) = (one.clone(), self.book.clone(), self.who(&given.request));
                self.runtime.spawn(async move {
                    let fate = ask(&one, &who, &given.request, PATIENCE).await;
                    assert_ne!(fate, Fate::Open, "{:?}", given.request);
                    book.put(&who, &given.request, given.usdt, fate);
                })
            })
            .collect();
        again.into_iter().for_each(|task| self.runtime.block_on(task).unwrap());
    }
}

impl Load {
    /// Lets the clients end what they are at.
    pub fn end(self, field: &Field) {
        self.stop.store(true, Ordering::Relaxed);
        self.tasks.into_iter().for_each(|task| field.runtime.block_on(task).unwrap());
    }
}

async fn ask(
    client: &Client,
    credential: &Credential,
    request: &SignRequest,
    deadline: Duration,
) -> Fate {
    let asked = Asked::new(&client.genesis_id(), request).unwrap();
    let options = SignOptions { deadline, wait_for_approval: false };
    match client.sign(&asked, credential, &options).await {
        Ok(Outcome::Signed(signed)) => Fate::Signed(signed.signature().to_vec()),
        Ok(Outcome::Pending(pending)) => panic!("{pending:?}"),
        Err(ClientError::Denied(denied)) => Fate::Denied(denied.denial().denial.code),
        Err(ClientError::NotSettled { last: Unsettled::InStoreOnly { .. }, .. }) => Fate::InStore,
        Err(error) => {
            assert!(!error.is_settled(), "{error}");
            Fate::Open
        }
    }
}
