use super::*;

fn write(fs: &Faulty, path: &str, position: u64, bytes: &[u8]) -> io::Result<()> {
    fs.open(Path::new(path), Mode::Create)?.write_all_at(&mut [IoSlice::new(bytes)], position)
}

fn sync(fs: &Faulty, path: &str) -> io::Result<()> {
    fs.open(Path::new(path), Mode::Existing)?.sync_data()
}

#[test]
fn what_was_synced_is_there_after_a_crash() {
    let fs = Faulty::default();
    fs.create_dir(Path::new("/log")).unwrap();
    write(&fs, "/log/a", 0, &[1; 3000]).unwrap();
    sync(&fs, "/log/a").unwrap();
    fs.sync_dir(Path::new("/log")).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    write(&fs, "/log/a", 3000, &[2; 3000]).unwrap();
    let mut tails = BTreeSet::new();
    for seed in 0..200 {
        let left = fs.after_crash(seed).bytes("/log/a").unwrap();
        assert_eq!(&left[..3000], &[1; 3000]);
        assert!(left[3000..].iter().all(|byte| [0, 2].contains(byte)));
        assert_eq!(
            fs.after_crash(seed).bytes("/log/a").unwrap(),
            left,
            "the same seed leaves the same"
        );
        tails.insert(left[3000..].to_vec());
    }
    assert!(
        tails.contains(&vec![]) && tails.contains(&vec![2; 3000]) && tails.len() > 20,
        "{}",
        tails.len()
    );
    assert_eq!(fs.after_kill().bytes("/log/a").unwrap().len(), 6000);
}

#[test]
fn an_entry_that_was_not_synced_may_be_lost_or_come_back() {
    let fs = Faulty::default();
    write(&fs, "/old", 0, b"x").unwrap();
    sync(&fs, "/old").unwrap();
    let seeds = |fs: &Faulty, path: &str| {
        (0..100).filter(|&seed| fs.after_crash(seed).bytes(path).is_some()).count()
    };
    assert!((1..100).contains(&seeds(&fs, "/old")));
    fs.sync_dir(Path::new("/")).unwrap();
    assert_eq!(seeds(&fs, "/old"), 100);
    fs.rename(Path::new("/old"), Path::new("/new")).unwrap();
    for seed in 0..100 {
        let left = fs.after_crash(seed);
        assert!(
            left.bytes("/old").is_some() != left.bytes("/new").is_some(),
            "a rename is never half there"
        );
    }
    fs.remove_file(Path::new("/new")).unwrap();
    assert!((1..100).contains(&seeds(&fs, "/old")));
    assert_eq!(fs.bytes("/new"), None);
}

#[test]
fn faults_strike_where_they_are_told_to() {
    let fs = Faulty::default();
    fs.fail_at(1, Fault::NoSpace);
    assert_eq!(write(&fs, "/a", 0, b"12345678").unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(fs.bytes("/a").unwrap(), b"1234");
    fs.set_capacity(8);
    write(&fs, "/a", 4, b"5678").unwrap();
    assert_eq!(write(&fs, "/a", 8, b"9").unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(fs.space(Path::new("/")).unwrap(), (8, 0));
    fs.fail_at(fs.changes(), Fault::Io);
    sync(&fs, "/a").unwrap_err();
    sync(&fs, "/a").unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    assert_eq!(fs.bytes("/a").unwrap(), b"12345678");
    assert_eq!(
        fs.after_crash(0).bytes("/a").unwrap(),
        b"",
        "a sync that failed has forgotten what was dirty"
    );
    fs.fail_at(fs.changes(), Fault::Crash);
    write(&fs, "/b", 0, b"x").unwrap_err();
    assert!(fs.crashed() && fs.list(Path::new("/")).is_err());
}

#[test]
fn a_lock_is_held_until_it_is_dropped() {
    let fs = Faulty::default();
    let lock = fs.lock(Path::new("/.lock")).unwrap();
    assert_eq!(fs.lock(Path::new("/.lock")).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    drop(lock);
    fs.lock(Path::new("/.lock")).unwrap();
}
