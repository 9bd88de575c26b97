//! Who a machine is to the hypervisor and on its wire.

use serde::{Deserialize, Serialize};

/// QEMU's own prefix for network cards.
const MAC_PREFIX: [u8; 3] = [0x52, 0x54, 0x00];

/// A machine's UUID and the address of its network card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its UUID in the usual form.
    pub uuid: String,
    /// The address of its network card, `52:54:00:…`.
    pub mac: String,
}

impl Identity {
    /// An identity from 128 random bits: a UUID of version 4, and a card address from its end.
    pub fn from_random(bits: u128) -> Identity {
        const VERSION: u128 = 0xf << 76;
        const VARIANT: u128 = 0b11 << 62;
        let bits = (bits & !VERSION & !VARIANT) | (4 << 76) | (0b10 << 62);
        let [.., a, b, c] = bits.to_be_bytes();
        let [x, y, z] = MAC_PREFIX;
        Identity {
            uuid: format!(
                "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
                bits >> 96,
                (bits >> 80) & 0xffff,
                (bits >> 64) & 0xffff,
                (bits >> 48) & 0xffff,
                bits & 0xffff_ffff_ffff
            ),
            mac: format!("{x:02x}:{y:02x}:{z:02x}:{a:02x}:{b:02x}:{c:02x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_has_the_form_of_a_random_uuid() {
        let all = Identity::from_random(u128::MAX);
        assert_eq!(all.uuid, "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(all.mac, "52:54:00:ff:ff:ff");
        let none = Identity::from_random(0x01_0203);
        assert_eq!(none.uuid, "00000000-0000-4000-8000-000000010203");
        assert_eq!(none.mac, "52:54:00:01:02:03");
    }
}
