use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use proptest::prelude::*;

use super::*;

const LIMITS: MemoryLimits = MemoryLimits {
    device: 100,
    derived: 50,
};

#[derive(Default)]
struct CountedWakes(AtomicUsize);

impl Wake for CountedWakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn poll(
    future: Pin<&mut ReserveFuture>,
    wakes: &Arc<CountedWakes>,
) -> Poll<Result<Reservation, TooLarge>> {
    future.poll(&mut Context::from_waker(&Waker::from(Arc::clone(wakes))))
}

#[test]
fn shares_do_not_take_from_each_other() {
    let budget = MemoryBudget::new(LIMITS);
    let devices = budget.try_reserve(100, Share::Device).unwrap();
    assert!(budget.try_reserve(1, Share::Device).is_none());
    let derived = budget.try_reserve(50, Share::Derived).unwrap();
    drop(devices);
    assert_eq!(
        (budget.used(Share::Device), budget.used(Share::Derived)),
        (0, 50)
    );
    drop(derived);
}

#[test]
fn a_waiter_is_woken_when_enough_is_free_and_not_before() {
    let budget = MemoryBudget::new(LIMITS);
    let mut held = budget.try_reserve(100, Share::Device).unwrap();
    let wakes = Arc::new(CountedWakes::default());
    let mut waiting = pin!(budget.reserve(60, Share::Device));
    assert!(poll(waiting.as_mut(), &wakes).is_pending());
    drop(held.split(50));
    assert_eq!(wakes.0.load(Ordering::SeqCst), 0, "50 of 60 are free");
    drop(held.split(10));
    assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
    let Poll::Ready(Ok(granted)) = poll(waiting.as_mut(), &wakes) else {
        panic!("memory was free")
    };
    assert_eq!(
        (
            granted.bytes(),
            budget.used(Share::Device),
            budget.waiting(Share::Device)
        ),
        (60, 100, 0)
    );
}

#[test]
fn a_woken_waiter_that_gives_up_passes_the_wake_on() {
    let budget = MemoryBudget::new(LIMITS);
    let held = budget.try_reserve(100, Share::Device).unwrap();
    let (first, second) = (
        Arc::new(CountedWakes::default()),
        Arc::new(CountedWakes::default()),
    );
    let mut quitter = Box::pin(budget.reserve(100, Share::Device));
    let mut patient = Box::pin(budget.reserve(100, Share::Device));
    assert!(poll(quitter.as_mut(), &first).is_pending());
    assert!(poll(patient.as_mut(), &second).is_pending());
    drop(held);
    assert_eq!(
        (
            first.0.load(Ordering::SeqCst),
            second.0.load(Ordering::SeqCst)
        ),
        (1, 0)
    );
    drop(quitter);
    assert_eq!(second.0.load(Ordering::SeqCst), 1);
    assert!(poll(patient.as_mut(), &second).is_ready());
}

#[test]
fn what_can_never_be_granted_is_an_error_and_not_a_wait() {
    let budget = MemoryBudget::new(LIMITS);
    let wakes = Arc::new(CountedWakes::default());
    let mut waiting = pin!(budget.reserve(101, Share::Device));
    let Poll::Ready(Err(error)) = poll(waiting.as_mut(), &wakes) else {
        panic!("it waits for ever")
    };
    assert_eq!(
        error,
        TooLarge {
            bytes: 101,
            capacity: 100
        }
    );
}

#[test]
fn what_exists_already_may_exceed_the_capacity_and_blocks_the_rest() {
    let budget = MemoryBudget::new(LIMITS);
    let restored = budget.account(150, Share::Device);
    assert!(budget.try_reserve(1, Share::Device).is_none());
    drop(restored);
    assert!(budget.try_reserve(100, Share::Device).is_some());
}

#[test]
fn reservations_of_different_shares_do_not_merge() {
    let budget = MemoryBudget::new(LIMITS);
    let mut device = budget.try_reserve(10, Share::Device).unwrap();
    let derived = budget.try_reserve(10, Share::Derived).unwrap();
    let derived = device.merge(derived).unwrap_err();
    device
        .merge(budget.try_reserve(5, Share::Device).unwrap())
        .unwrap();
    device.shrink_to(12);
    assert_eq!(
        (device.bytes(), budget.used(Share::Device), derived.bytes()),
        (12, 12, 10)
    );
    let mut none = Reservation::none();
    none.merge(device).unwrap();
    drop(none);
    assert_eq!(budget.used(Share::Device), 0);
}

proptest! {
    #[test]
    fn reserved_memory_is_the_sum_of_reservations_and_never_exceeds_the_capacity(
        steps in prop::collection::vec((0_u8..4, 0_usize..60), 0..200),
    ) {
        let budget = MemoryBudget::new(LIMITS);
        let mut held: Vec<Reservation> = Vec::new();
        for (action, amount) in steps {
            match action {
                0 | 1 => held.extend(budget.try_reserve(amount, Share::Device)),
                2 if !held.is_empty() => drop(held.swap_remove(amount % held.len())),
                3 if !held.is_empty() => {
                    let index = amount % held.len();
                    let part = held[index].split(amount / 2);
                    held.push(part);
                }
                _ => {}
            }
            let sum: usize = held.iter().map(Reservation::bytes).sum();
            prop_assert_eq!(budget.used(Share::Device), sum);
            prop_assert!(sum <= budget.capacity(Share::Device));
        }
    }
}
