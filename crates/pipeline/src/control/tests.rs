use super::*;

fn put(state: &mut InForce, offset: u64, entry: &Entry) -> Result<Change, ControlError> {
    let Entry::Control { clock, kind, body } = entry else { panic!("no control record") };
    state.apply(Offset(offset), *clock, kind, body)
}

fn settings(generation: u64, threshold: f32) -> Entry {
    let settings = DetectorSettings { threshold, ..DetectorSettings::default() };
    activation(7, generation, DETECTORS, &serde_json::to_string(&settings).unwrap()).unwrap()
}

fn written_by(entry: &Entry, release: &str) -> Entry {
    let Entry::Control { clock, kind, body } = entry else { panic!("no control record") };
    let body =
        body.replace(&format!("\"release\":\"{RELEASE}\""), &format!("\"release\":\"{release}\""));
    Entry::Control { clock: *clock, kind: kind.clone(), body }
}

/// Every order of three activations, repeats among them: the highest generation seen so far is in force
/// after each, and a rollback to an older content is a new generation.
#[test]
fn a_generation_not_above_its_own_is_ignored() {
    for order in [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1], [2, 2, 1]] {
        let mut state = InForce::default();
        let mut highest = 0;
        for generation in order {
            let change =
                put(&mut state, generation, &settings(generation, generation as f32 / 10.0));
            let expected = if generation > highest { Change::Detectors } else { Change::Nothing };
            assert_eq!(change, Ok(expected), "{order:?}");
            highest = highest.max(generation);
            assert_eq!(state.detectors.generation, highest);
            assert_eq!(state.detectors.content.threshold, highest as f32 / 10.0);
        }
    }
    let mut state = InForce::default();
    for (generation, threshold) in [(1, 0.5), (2, 0.9), (3, 0.5)] {
        put(&mut state, generation, &settings(generation, threshold)).unwrap();
    }
    assert_eq!(state.detectors.content.threshold, 0.5);
}

#[test]
fn what_is_in_force_survives_a_checkpoint() {
    let mut state = InForce::default();
    put(&mut state, 1, &settings(4, 0.65)).unwrap();
    put(&mut state, 2, &domain(9, "acme", "load:1", false).unwrap()).unwrap();
    assert_eq!(InForce::restore(&state.save().unwrap()).unwrap(), state);
    assert_eq!(InForce::restore(b"").unwrap(), InForce::default());
    assert!(InForce::restore(b"{}").is_err());
}

#[test]
fn domains_start_and_end_and_are_bounded() {
    let mut state = InForce::default();
    let start = |name: &str, clock| domain(clock, "acme", name, false).unwrap();
    let end = |name: &str| domain(0, "acme", name, true).unwrap();
    assert_eq!(put(&mut state, 1, &start("a", 5)), Ok(Change::Domains));
    assert_eq!(put(&mut state, 2, &start("a", 6)), Ok(Change::Nothing));
    assert_eq!(put(&mut state, 3, &domain(0, "other", "a", true).unwrap()), Ok(Change::Nothing));
    assert_eq!(state.domains, [OpenDomain { tenant: "acme".into(), domain: "a".into(), since: 5 }]);
    assert_eq!(put(&mut state, 4, &end("a")), Ok(Change::Domains));
    assert_eq!(put(&mut state, 5, &end("a")), Ok(Change::Nothing));
    assert!(state.domains.is_empty());
    for number in 0..MOST_DOMAINS as i64 + 3 {
        put(&mut state, 6, &start(&format!("d{number}"), number)).unwrap();
    }
    assert_eq!(state.domains.len(), MOST_DOMAINS);
    assert_eq!(state.domains.first().map(|open| open.since), Some(3));
}

#[test]
fn what_is_not_understood_names_the_release_that_wrote_it() {
    let future =
        |kind: &str, body: &str| Entry::Control { clock: 0, kind: kind.into(), body: body.into() };
    let unknown_field = r#"{"baseline":"calibrated","learning_events":1,"threshold":0.5,"threat_threshold":0.5,"colour":1}"#;
    let activation = |subject: &str, content: &str| activation(0, 1, subject, content).unwrap();
    for entry in [
        future("slot_leaves", r#"{"release":"9.8.7","slot":3}"#),
        written_by(&activation("rules", "{}"), "9.8.7"),
        written_by(&activation(DETECTORS, unknown_field), "9.8.7"),
    ] {
        let error = put(&mut InForce::default(), 12, &entry).unwrap_err().to_string();
        assert!(error.contains("offset 12") && error.contains("run palisade 9.8.7"), "{error}");
    }
    let error = put(&mut InForce::default(), 1, &future("x", "no json")).unwrap_err();
    assert!(error.to_string().contains("(unknown)"), "{error}");
    let Entry::Control { clock, kind, body } = settings(1, 0.5) else { panic!() };
    let changed = Entry::Control { clock, kind, body: body.replace("0.5", "0.6") };
    assert!(put(&mut InForce::default(), 1, &changed).unwrap_err().to_string().contains("hash"));
}

/// C3: newer versions are refused at once, older ones when something has to be processed under them.
#[test]
fn an_operator_that_is_lacking_is_refused_with_the_release_that_has_it() {
    let mut versions = OperatorVersions::newest();
    versions.0.insert("baseline".into(), 99);
    let content = serde_json::to_string(&versions).unwrap();
    let newer = written_by(&activation(0, 1, OPERATORS, &content).unwrap(), "9.8.7");
    let error = put(&mut InForce::default(), 5, &newer).unwrap_err().to_string();
    for part in ["offset 5", "version 99 of the operator 'baseline'", "run palisade 9.8.7"] {
        assert!(error.contains(part), "{part}: {error}");
    }

    let mut state = InForce::default();
    let next = [
        Operator { name: "baseline", versions: &[2, 3] },
        Operator { name: "decoder", versions: &[1] },
    ];
    state.operators.content =
        OperatorVersions([("baseline".to_owned(), 1), ("decoder".to_owned(), 1)].into());
    state.operators.release = "0.1.0".into();
    assert_eq!(state.check_known(Offset(3), &next, true), Ok(()));
    let error = state.check_known(Offset(3), &next, false).unwrap_err().to_string();
    assert!(error.contains("run palisade 0.1.0 once more and stop it with SIGTERM"), "{error}");
    state.operators.content.0.insert("baseline".into(), 2);
    assert_eq!(state.check_known(Offset(3), &next, false), Ok(()));
    state.operators.content.0.remove("decoder");
    assert!(state.check_known(Offset(3), &next, false).is_err());
    state.operators.content.0.insert("sigma".into(), 1);
    assert!(state.check_known(Offset(3), &next, true).is_err());
}

#[test]
fn this_release_has_what_it_activates_and_what_was_in_force_first() {
    assert_eq!(OperatorVersions::newest().lacking(&KNOWN), None);
    assert_eq!(InForce::default().check(Offset(0)), Ok(()));
}

/// The bodies of version 1 stay readable.
#[test]
fn golden_bodies() {
    let content =
        r#"{"baseline":"streamguard","learning_events":50,"threshold":0.8,"threat_threshold":0.7}"#;
    let body = format!(
        r#"{{"release":"0.1.0","generation":3,"subject":"detectors","hash":"{}","content":{}}}"#,
        content_hash(content),
        serde_json::to_string(content).unwrap()
    );
    let mut state = InForce::default();
    assert_eq!(state.apply(Offset(1), 0, "activation", &body), Ok(Change::Detectors));
    let expected = DetectorSettings {
        baseline: Mode::StreamGuard,
        learning_events: 50,
        threshold: 0.8,
        threat_threshold: 0.7,
    };
    assert_eq!(state.detectors.content, expected);
    assert_eq!(serde_json::to_string(&expected).unwrap(), content);
    for (subject, change) in [("rules", Change::Rules), ("indicators", Change::Indicators)] {
        let content = r#"{"set":"0123"}"#;
        let body = format!(
            r#"{{"release":"0.1.0","generation":4,"subject":"{subject}","hash":"{}","content":{}}}"#,
            content_hash(content),
            serde_json::to_string(content).unwrap()
        );
        assert_eq!(state.apply(Offset(1), 0, "activation", &body), Ok(change));
    }
    assert_eq!(state.rules.content.set, "0123");
    assert_eq!(state.indicators.content.set, "0123");
    // A checkpoint of before there were lists of indicators.
    let mut saved: serde_json::Value = serde_json::from_slice(&state.save().unwrap()).unwrap();
    saved.as_object_mut().unwrap().remove("indicators");
    let restored = InForce::restore(saved.to_string().as_bytes()).unwrap();
    assert_eq!(restored.indicators.content.set, "");
    assert_eq!(restored.rules, state.rules);
    let body = r#"{"release":"0.1.0","tenant":"t","domain":"load:1"}"#;
    assert_eq!(state.apply(Offset(2), 0, "domain_starts", body), Ok(Change::Domains));
    assert_eq!(state.apply(Offset(3), 0, "domain_ends", body), Ok(Change::Domains));
}
