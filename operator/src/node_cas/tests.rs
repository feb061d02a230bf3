//! Brokers take the Secret of the nodes at any time, the operator restarts, the CA's Secret is
//! lost: all nodes believe one another at every moment, and every exchange comes to its end.

use proptest::prelude::*;
use rustls_pki_types::pem::PemObject as _;
use weir_security::principal::Certificate;

use super::*;

const NOW: i64 = 1_800_000_000;
const WHOSE: (&str, &str) = ("the nodes of c", "uid");
const BROKERS: i32 = 3;

/// What a node has in use: its certificate, and the CAs that it trusts.
#[derive(Clone, Debug)]
struct Node {
    own: Pair,
    trusted: String,
}

impl Node {
    fn shown(&self) -> Shown {
        let own = fingerprints(&self.own.certificate)[0];
        Shown { own, cas: fingerprints(&self.trusted) }
    }

    /// Whether its certificate is of a CA that the other one trusts.
    fn is_believed_by(&self, other: &Self) -> bool {
        let issuer = parsed(&self.own.certificate).remove(0).authority_key_id;
        parsed(&other.trusted).iter().any(|ca| ca.key_id == issuer)
    }
}

fn parsed(pem: &str) -> Vec<Certificate> {
    let all = CertificateDer::pem_slice_iter(pem.as_bytes());
    all.map(|der| Certificate::parse(&der.unwrap()).unwrap()).collect()
}

/// The cluster, as it is in Kubernetes and in its processes.
#[derive(Debug, Default)]
struct World {
    /// The Secret of the CA.
    of_authority: Option<Data>,
    /// The Secret that brokers mount.
    issued: BTreeMap<i32, Pair>,
    trusted: Option<String>,
    /// What the operator remembers.
    memory: Option<Data>,
    operator: Option<Node>,
    brokers: BTreeMap<i32, Node>,
    request: String,
    waits: Option<Waits>,
}

impl World {
    fn new() -> Self {
        let mut world = Self::default();
        world.settle(true);
        (0..BROKERS).for_each(|id| world.sync(id));
        world
    }

    /// A pass of the operator, which may end after its first write.
    fn settle(&mut self, whole: bool) {
        let load = |kept: &Option<Data>| {
            kept.as_ref().and_then(|kept| NodeCas::load(WHOSE, kept, NOW).unwrap())
        };
        let known = load(&self.of_authority).or_else(|| load(&self.memory));
        let mut cas = known.unwrap_or_else(|| {
            NodeCas::new(WHOSE, self.trusted.clone(), &self.request, NOW).unwrap()
        });
        cas.request(WHOSE.0, &self.request, NOW).unwrap();
        let registered = Some(self.brokers.keys().copied().collect());
        let shown = self.brokers.iter().map(|(id, node)| (*id, node.shown())).collect();
        let brokers = Brokers { replicas: BROKERS, registered };
        let mut issued = self.issued.clone();
        self.waits = cas.settle(&brokers, &shown, &mut issued, NOW).unwrap();
        self.of_authority = Some(cas.kept());
        if !whole {
            self.restart();
            return;
        }
        (self.issued, self.trusted) = (issued, Some(cas.trusted()));
        self.memory = Some(cas.kept());
        let holder = Holder::Node(WHOSE.1, &Principal::Controller);
        let own = cas.issuer().issue(holder, NOW).unwrap();
        self.operator = Some(Node { own, trusted: cas.trusted() });
    }

    /// A broker takes what the Secret holds.
    fn sync(&mut self, id: i32) {
        let (Some(own), Some(trusted)) = (self.issued.get(&id), &self.trusted) else { return };
        self.brokers.insert(id, Node { own: own.clone(), trusted: trusted.clone() });
    }

    fn restart(&mut self) {
        (self.memory, self.operator) = (None, None);
    }

    /// The nodes that do not believe one another.
    fn strangers(&self) -> Vec<(String, String)> {
        let name = |id: &i32| format!("broker {id}");
        let mut nodes: Vec<_> = self.brokers.iter().map(|(id, node)| (name(id), node)).collect();
        nodes.extend(self.operator.iter().map(|node| ("operator".to_owned(), node)));
        let mut found = Vec::new();
        for (one, node) in &nodes {
            let others = nodes.iter().filter(|(_, other)| !node.is_believed_by(other));
            found.extend(others.map(|(other, _)| (one.clone(), other.clone())));
        }
        found
    }
}

#[derive(Clone, Debug)]
enum Move {
    Settle,
    Half,
    Sync(i32),
    Restart,
    Request,
    Lose,
}

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        5 => Just(Move::Settle),
        1 => Just(Move::Half),
        6 => (0..BROKERS).prop_map(Move::Sync),
        1 => Just(Move::Restart),
        1 => Just(Move::Request),
        1 => Just(Move::Lose),
    ]
}

fn run(moves: &[Move]) {
    let mut world = World::new();
    let mut requests = 0;
    for (at, each) in moves.iter().enumerate() {
        match each {
            Move::Settle => world.settle(true),
            Move::Half => world.settle(false),
            Move::Sync(id) => world.sync(*id),
            Move::Restart => world.restart(),
            Move::Request => {
                requests += 1;
                world.request = requests.to_string();
            }
            Move::Lose => world.of_authority = None,
        }
        // An operator whose CA is lost has nothing that the brokers believe until they have taken
        // the new one.
        let mut strangers = world.strangers();
        strangers.retain(|(one, _)| one != "operator");
        assert_eq!(strangers, [], "after move {at} of {moves:?}");
    }
    for _ in 0..8 {
        world.settle(true);
        (0..BROKERS).for_each(|id| world.sync(id));
    }
    world.settle(true);
    assert_eq!(world.waits, None, "the exchange ends: {moves:?}");
    assert_eq!(world.strangers(), []);
    assert_eq!(parsed(world.trusted.as_ref().unwrap()).len(), 1, "the former CAs are dropped");
    let kept = world.of_authority.unwrap();
    assert_eq!(NodeCas::load(WHOSE, &kept, NOW).unwrap().unwrap().request, world.request);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn nodes_believe_one_another_at_every_moment(moves in prop::collection::vec(moves(), 0..40)) {
        run(&moves);
    }
}

/// As long as nothing is lost, brokers believe the operator, too.
#[test]
fn an_exchange_waits_for_every_broker_twice() {
    let mut world = World::new();
    let before = world.trusted.clone().unwrap();
    world.request = "1".to_owned();
    let waits = |world: &World| {
        world.waits.clone().map(|waits| (waits.step, waits.brokers.into_iter().collect::<Vec<_>>()))
    };
    for (step, next) in [(Step::Trust, Some(Step::Issue)), (Step::Issue, None)] {
        for id in 0..BROKERS {
            world.settle(true);
            assert_eq!(waits(&world), Some((step, (id..BROKERS).collect())));
            assert_eq!(world.strangers(), []);
            world.sync(id);
        }
        world.settle(true);
        assert_eq!(waits(&world).map(|(step, _)| step), next);
        assert_eq!(world.strangers(), []);
    }
    let after = world.trusted.clone().unwrap();
    assert_eq!(parsed(&after).len(), 1);
    assert!(after != before);
    world.settle(true);
    assert_eq!(world.trusted, Some(after), "the same request again is none");
}

#[test]
fn what_is_no_ca_is_refused() {
    let cas = NodeCas::new(WHOSE, None, "", NOW).unwrap();
    let kept = |change: fn(&mut Data)| {
        let mut kept = cas.kept();
        change(&mut kept);
        NodeCas::load(WHOSE, &kept, NOW).map(|cas| cas.is_some()).map_err(|error| error.to_string())
    };
    assert_eq!(kept(|_| {}), Ok(true));
    assert_eq!(kept(|kept| drop(kept.remove(KEY))), Ok(false));
    assert!(kept(|kept| drop(kept.insert(KEY.to_owned(), ByteString(vec![255])))).is_err());
    let step = kept(|kept| {
        kept.insert(FORMER[0].to_owned(), ByteString(b"x".to_vec()));
        kept.insert(STEP.to_owned(), ByteString(b"Later".to_vec()));
    });
    assert_eq!(step, Err("step: there is no step \"Later\"".to_owned()));
}
