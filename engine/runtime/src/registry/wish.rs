//! What becomes of wishes: the entries that they come to, if they may. Nothing is changed here,
//! that is for the log.

use std::collections::HashMap;

use quiver_model::{SenderId, Timestamp};

use super::{
    ATTRIBUTES_MAX, Amendment, AttributeError, Enrolment, Registry, RegistryEntry,
    attributes::check_all,
};

/// What somebody asks of the registry for one identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Let it connect, or change what is said of it.
    Enroll(Enrolment),
    /// Change what is said of it.
    Amend(Amendment),
}

/// Why a wish is not granted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WishRefusal {
    /// Nobody enrolled the identity that is to be changed.
    #[error("{sender} is not enrolled; quiver devices list shows who is")]
    Unknown {
        /// The identity.
        sender: SenderId,
    },
    /// An attribute cannot be.
    #[error(transparent)]
    Attribute(#[from] AttributeError),
    /// More attributes than there may be.
    #[error("{sender} would have {count} attributes, and may have {ATTRIBUTES_MAX}")]
    TooManyAttributes {
        /// The identity.
        sender: SenderId,
        /// How many it would have.
        count: usize,
    },
}

/// What wishes come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Entries that are not as they were, one for each identity in the order in which it is named
    /// first.
    pub entries: Vec<RegistryEntry>,
    /// What that is, counted.
    pub outcome: Outcome,
}

/// What became of wishes. Each identity is counted once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Identities that nobody knew before.
    pub enrolled: usize,
    /// Identities of which something else is said now.
    pub changed: usize,
    /// Identities of which that was said already: nothing is written of them.
    pub unchanged: usize,
    /// Wishes that were not granted, by their place; the others are.
    pub refused: Vec<(usize, WishRefusal)>,
}

impl Wish {
    /// Whose entry it is about.
    pub const fn sender(&self) -> &SenderId {
        match self {
            Self::Enroll(enrolment) => &enrolment.sender,
            Self::Amend(amendment) => &amendment.sender,
        }
    }

    /// The identity's entry from now on; `known` is the one it has.
    ///
    /// # Errors
    /// If the wish is not granted.
    pub fn entry(
        self,
        known: Option<RegistryEntry>,
        now: Timestamp,
    ) -> Result<RegistryEntry, WishRefusal> {
        let sender = self.sender().clone();
        let before = known.as_ref().map_or(0, |known| known.attributes.len());
        let entry = match self {
            Self::Enroll(enrolment) => {
                check_all(&enrolment.attributes)?;
                enrolment.entry(known, now)
            }
            Self::Amend(amendment) => amendment.entry(known, now)?,
        };
        let count = entry.attributes.len();
        // An earlier version took more of them: they may become fewer, one by one.
        if count > ATTRIBUTES_MAX && count > before {
            return Err(WishRefusal::TooManyAttributes { sender, count });
        }
        Ok(entry)
    }
}

/// An identity that wishes are about.
struct Place {
    before: Option<RegistryEntry>,
    entry: RegistryEntry,
}

impl Registry {
    /// What these wishes come to, granted one after the other.
    pub fn decide(&self, wishes: Vec<Wish>, now: Timestamp) -> Decision {
        let mut places: Vec<Place> = Vec::with_capacity(wishes.len());
        let mut numbers: HashMap<SenderId, usize> = HashMap::with_capacity(wishes.len());
        let mut decision = Decision::default();
        for (index, wish) in wishes.into_iter().enumerate() {
            let sender = wish.sender().clone();
            let place = numbers
                .get(&sender)
                .and_then(|number| places.get_mut(*number));
            // What an earlier wish of these says counts already.
            let granted = match place {
                Some(place) => wish
                    .entry(Some(place.entry.clone()), now)
                    .map(|entry| place.entry = entry),
                None => {
                    let before = self.get(&sender);
                    wish.entry(before.clone(), now).map(|entry| {
                        numbers.insert(sender, places.len());
                        places.push(Place { before, entry });
                    })
                }
            };
            if let Err(refusal) = granted {
                decision.outcome.refused.push((index, refusal));
            }
        }
        for Place { before, entry } in places {
            match before {
                Some(before) if before == entry => {
                    decision.outcome.unchanged += 1;
                    continue;
                }
                Some(_) => decision.outcome.changed += 1,
                None => decision.outcome.enrolled += 1,
            }
            decision.entries.push(entry);
        }
        decision
    }
}
