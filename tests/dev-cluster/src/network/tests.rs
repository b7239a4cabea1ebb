use super::*;

/// Every chunk meets this one thing.
fn only(what: Mischief) -> Temper {
    let at = Mischief::ALL.iter().position(|kind| *kind == what).unwrap();
    Temper { per_mille: 1_000, kinds: &Mischief::ALL[at..=at], delay_ms: 10 }
}

/// Sends lines of four bytes through a network that does one thing, and gives what arrives before
/// the connection ends or nothing more comes.
async fn through(temper: Temper, hostile: bool, lines: &[&str]) -> (String, Counts) {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut network = Network::new(7, temper);
    let address = network.route(server.local_addr().unwrap()).await.unwrap();
    let (client, accepted) = tokio::join!(TcpStream::connect(address), server.accept());
    let (mut client, (mut server, _)) = (client.unwrap(), accepted.unwrap());
    client.set_nodelay(true).unwrap();
    network.set_hostile(hostile);
    let mut arrived = Vec::new();
    for line in lines {
        let _ = client.write_all(line.as_bytes()).await;
        // so that each line is a chunk of its own
        let _ = timeout(Duration::from_millis(40), server.read_buf(&mut arrived)).await;
    }
    while let Ok(Ok(size)) =
        timeout(Duration::from_millis(300), server.read_buf(&mut arrived)).await
        && size > 0
    {}
    (String::from_utf8_lossy(&arrived).into_owned(), network.counts())
}

const LINES: [&str; 4] = ["one\n", "two\n", "thr\n", "fou\n"];

#[tokio::test]
async fn quiet_network_passes_every_byte_and_counts_nothing() {
    let (arrived, counts) = through(only(Mischief::Flip), false, &LINES).await;
    assert_eq!((arrived.as_str(), counts), ("one\ntwo\nthr\nfou\n", Counts::default()));
}

#[tokio::test]
async fn hostile_network_flips_one_bit_of_a_chunk() {
    let (arrived, counts) = through(only(Mischief::Flip), true, &["AAAA"]).await;
    assert_ne!(arrived, "AAAA");
    assert_eq!(counts, Counts { flipped: 1, ..Counts::default() });
}

#[tokio::test]
async fn hostile_network_drops_repeats_and_replays() {
    let (arrived, counts) = through(only(Mischief::Drop), true, &LINES).await;
    assert_eq!((arrived.as_str(), counts.dropped), ("", 4));
    let (arrived, counts) = through(only(Mischief::Repeat), true, &LINES[..2]).await;
    assert_eq!((arrived.as_str(), counts.repeated), ("one\none\ntwo\ntwo\n", 2));
    let (arrived, counts) = through(only(Mischief::Replay), true, &LINES[..2]).await;
    assert_eq!((arrived.as_str(), counts.replayed), ("one\none\ntwo\n", 1));
}

#[tokio::test]
async fn hostile_network_swaps_a_chunk_with_the_next_and_keeps_none_back() {
    let (arrived, counts) = through(only(Mischief::Swap), true, &LINES).await;
    assert_eq!((arrived.as_str(), counts.swapped), ("two\none\nfou\nthr\n", 2));
    // nothing comes to swap with
    let (arrived, _) = through(only(Mischief::Swap), true, &LINES[..1]).await;
    assert_eq!(arrived, "one\n");
}

#[tokio::test]
async fn hostile_network_delays_and_cuts_off() {
    let (arrived, counts) = through(only(Mischief::Delay), true, &LINES).await;
    assert_eq!((arrived.as_str(), counts.delayed, counts.harm()), ("one\ntwo\nthr\nfou\n", 4, 0));
    let (arrived, counts) = through(only(Mischief::Cut), true, &LINES).await;
    assert_eq!((arrived.as_str(), counts.cut), ("", 1));
}

#[test]
fn same_seed_and_connection_throw_the_same_dice() {
    let throws = |seed, connection| {
        let network = Network::new(seed, Temper::DEMO);
        let mut dice = network.shared.dice(connection, 0);
        (0..200).map(|turn| Temper::DEMO.pick(&mut dice, || turn)).collect::<Vec<_>>()
    };
    assert_eq!(throws(1, 1), throws(1, 1));
    assert_ne!(throws(1, 1), throws(1, 2));
    assert_ne!(throws(1, 1), throws(2, 1));
    let harmed = throws(1, 1).iter().filter(|what| what.is_some()).count();
    assert!((12..60).contains(&harmed), "{harmed} of 200 where 30 are expected");
}

#[test]
fn every_kind_of_mischief_comes_round() {
    let mut dice = Network::new(3, Temper::DEMO).shared.dice(0, 0);
    let mut turn = 0;
    let mut met = Vec::new();
    while turn < Temper::DEMO.kinds.len() {
        let mut next = || {
            turn += 1;
            turn - 1
        };
        met.extend(Temper::DEMO.pick(&mut dice, &mut next));
    }
    assert_eq!(met, Temper::DEMO.kinds);
    assert!(Mischief::ALL.iter().all(|kind| met.contains(kind)));
}
