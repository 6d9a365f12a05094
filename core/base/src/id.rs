//! Typed ids: one newtype per resource, so that a port id cannot be handed where a server id is wanted.

/// Defines a typed id: a shared string that compares, orders, hashes and serialises as itself.
///
/// `typed_id!(/// Id of a server. ServerId)` makes `ServerId` with `new_uuid()` (dashed UUID v4, as
/// Nova and Neutron use), `new_hex()` (32 hexadecimal digits, as Keystone uses) and conversions.
#[macro_export]
macro_rules! typed_id {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(::std::sync::Arc<str>);

        impl $name {
            /// A fresh random id in the dashed UUID form.
            #[must_use]
            pub fn new_uuid() -> Self { Self($crate::random::uuid().into()) }
            /// A fresh random id as 32 hexadecimal digits.
            #[must_use]
            pub fn new_hex() -> Self { Self($crate::random::hex32().into()) }
            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str { &self.0 }
        }
        impl ::std::convert::From<&str> for $name { fn from(s: &str) -> Self { Self(s.into()) } }
        impl ::std::convert::From<String> for $name { fn from(s: String) -> Self { Self(s.into()) } }
        impl ::std::convert::From<&String> for $name { fn from(s: &String) -> Self { Self(s.as_str().into()) } }
        impl ::std::convert::From<$name> for String { fn from(s: $name) -> Self { s.0.to_string() } }
        impl ::std::convert::AsRef<str> for $name { fn as_ref(&self) -> &str { &self.0 } }
        impl ::std::borrow::Borrow<str> for $name { fn borrow(&self) -> &str { &self.0 } }
        impl ::std::ops::Deref for $name { type Target = str; fn deref(&self) -> &str { &self.0 } }
        impl ::std::cmp::PartialEq<str> for $name { fn eq(&self, o: &str) -> bool { &*self.0 == o } }
        impl ::std::cmp::PartialEq<&str> for $name { fn eq(&self, o: &&str) -> bool { &*self.0 == *o } }
        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result { f.write_str(&self.0) }
        }
        impl ::std::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result { f.write_str(&self.0) }
        }
        impl ::serde::Serialize for $name {
            fn serialize<S: ::serde::Serializer>(&self, s: S) -> ::std::result::Result<S::Ok, S::Error> { s.serialize_str(&self.0) }
        }
        impl<'de> ::serde::Deserialize<'de> for $name {
            fn deserialize<D: ::serde::Deserializer<'de>>(d: D) -> ::std::result::Result<Self, D::Error> {
                let text = <::std::borrow::Cow<'de, str> as ::serde::Deserialize<'de>>::deserialize(d)?;
                ::std::result::Result::Ok(Self(text.as_ref().into()))
            }
        }
    };
}

typed_id!(
    /// Id of a project (Keystone: 32 hexadecimal digits).
    ProjectId
);
typed_id!(
    /// Id of a user.
    UserId
);
typed_id!(
    /// Id of a domain; the first one is `default`.
    DomainId
);
typed_id!(
    /// Id of one request, `req-` and a UUID; it follows the work from the first log line to the last step.
    RequestId
);

impl RequestId {
    /// A fresh request id.
    #[must_use]
    pub fn generate() -> Self {
        Self::from(format!("req-{}", crate::random::uuid()))
    }
}
