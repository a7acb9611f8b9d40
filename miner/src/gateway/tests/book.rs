//! The book across restarts, and what it lets be spent.

use bitai_types::Sampler;

use super::*;
use crate::gateway::compute::Finish;

fn answer() -> Answer {
    Answer {
        job: Job {
            model_root: B256::repeat_byte(1),
            spec_version: 0,
            input_ids: vec![1, 2],
            max_new: 3,
            stop_ids: vec![2],
            sampler: Sampler::GREEDY,
            seed: 0,
        },
        output_ids: vec![5, 6, 7],
        trace_root: B256::repeat_byte(9),
        finish: Finish::Length,
    }
}

fn open(dir: &Path, caps: Caps) -> Result<Book, Failure> {
    Book::open(
        dir,
        (22216, Address::repeat_byte(5), Address::repeat_byte(6)),
        caps,
    )
}

fn caps(day: Option<u64>, total: Option<u64>) -> Caps {
    Caps {
        day: day.map(U256::from),
        total: total.map(U256::from),
    }
}

fn wei(n: u64) -> Option<U256> {
    Some(U256::from(n))
}

#[test]
fn what_was_admitted_is_there_after_a_restart_with_what_was_signed() {
    let dir = tempfile::tempdir().unwrap();
    let mut book = open(dir.path(), Caps::default()).unwrap();
    assert_eq!(
        open(dir.path(), Caps::default()).unwrap_err().code(),
        41,
        "one owner"
    );
    let id = book.admit("m", &answer(), wei(5)).unwrap().unwrap();
    let signed = Signed {
        hash: B256::repeat_byte(3),
        nonce: 4,
        attempt: 0,
        raw: vec![1, 2, 3].into(),
    };
    book.update(&id, |r| r.sent.push(signed.clone())).unwrap();
    let before = book.get(&id).unwrap().clone();
    drop(book);
    std::fs::write(dir.path().join("22216-0505050505050505050505050505050505050505-0606060606060606060606060606060606060606/.answer-x.1.tmp"), "half").unwrap();
    let book = open(dir.path(), Caps::default()).unwrap();
    assert_eq!(book.get(&id), Some(&before));
    assert_eq!(book.open_ids(), [id]);
    assert_eq!(before.sent, [signed]);
}

#[test]
fn rejects_a_file_that_cannot_be_read_or_is_anothers() {
    let dir = tempfile::tempdir().unwrap();
    let mut book = open(dir.path(), Caps::default()).unwrap();
    let id = book.admit("m", &answer(), None).unwrap().unwrap();
    let path = book.dir.join(format!("answer-{id}.json"));
    drop(book);
    let text = std::fs::read_to_string(&path).unwrap();
    for bad in [
        "{".to_owned(),
        text.replace("\"version\": 1", "\"version\": 2"),
        text.replace(&id, "ff"),
    ] {
        std::fs::write(&path, bad).unwrap();
        assert_eq!(open(dir.path(), Caps::default()).unwrap_err().code(), 40);
    }
    std::fs::write(&path, text).unwrap();
    assert_eq!(open(dir.path(), Caps::default()).unwrap().open_ids(), [id]);
}

#[test]
fn rejects_what_would_cost_more_than_may_be_spent() {
    let dir = tempfile::tempdir().unwrap();
    let mut book = open(dir.path(), caps(None, Some(10))).unwrap();
    let first = book.admit("m", &answer(), wei(6)).unwrap().unwrap();
    let over = book.admit("m", &answer(), wei(5)).unwrap().unwrap_err();
    assert!(
        over.contains("max_spend is reached: 6 of 10 wei") && over.contains("5 more"),
        "{over}"
    );
    book.admit("m", &answer(), wei(4)).unwrap().unwrap();
    assert!(
        book.admit("m", &answer(), None).unwrap().is_err(),
        "used up, whatever the next fee"
    );
    // A fee that came back may be spent again.
    book.update(&first, |r| r.state = State::Refunded).unwrap();
    let later = book.admit("m", &answer(), None).unwrap().unwrap();
    // Known only when it is posted: too much then.
    assert!(!book.reserve(&later, U256::from(7)).unwrap());
    assert_eq!(book.get(&later).unwrap().state, State::Unsettled);
    let third = book.admit("m", &answer(), wei(6)).unwrap().unwrap();
    assert!(
        !book.reserve(&third, U256::from(7)).unwrap(),
        "the price rose above what is left"
    );
    let fourth = book.admit("m", &answer(), wei(6)).unwrap().unwrap();
    assert!(book.reserve(&fourth, U256::from(5)).unwrap());
    assert_eq!(book.get(&fourth).unwrap().fee, wei(5));
    // Gas counts, and the next process knows.
    book.update(&fourth, |r| r.gas = U256::from(1)).unwrap();
    drop(book);
    let mut book = open(dir.path(), caps(None, Some(10))).unwrap();
    assert!(book.admit("m", &answer(), wei(1)).unwrap().is_err());
}

#[test]
fn a_days_cap_is_free_again_the_next_day() {
    let dir = tempfile::tempdir().unwrap();
    let mut book = open(dir.path(), caps(Some(10), None)).unwrap();
    let id = book.admit("m", &answer(), wei(10)).unwrap().unwrap();
    let over = book.admit("m", &answer(), wei(1)).unwrap().unwrap_err();
    assert!(over.contains("max_spend_day"), "{over}");
    book.update(&id, |r| r.created -= DAY_S).unwrap();
    book.admit("m", &answer(), wei(10)).unwrap().unwrap();
}
