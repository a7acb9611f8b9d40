//! Models that break the tensor spec: nobody runs them honestly, so whoever claims an answer is convicted.

use bitai_kernels::{Device, ReferenceDevice, load::needs};

use super::*;

/// A claim on a model, whatever it says.
fn judge(model: &Model) -> Judge {
    let job = small(model, Sampler::GREEDY);
    let mut judge = model.judge_root(&job, &[1; 6], TraceRoot(NOBODYS));
    if judge.convicted().is_none() {
        judge.join(WHO).unwrap();
    }
    judge
}

/// Checks that no device loads the model and that its claims are convicted so.
fn convicts(model: &Model, by: &'static str) {
    let load = ReferenceDevice.load(model.program.clone(), &model.tensors);
    assert!(load.is_err(), "a device loads it");
    let job = small(model, Sampler::GREEDY);
    let mut judge = model.judge_root(&job, &[1; 6], TraceRoot(NOBODYS));
    let mut challenger = ModelChallenger(model.pack());
    struct Silent;
    impl Defend for Silent {
        fn answer(&mut self, _: &Ask) -> Result<Answer, DisputeError> {
            Err(DisputeError::Kind("silent"))
        }
    }
    let game = play(&mut judge, WHO, &mut challenger, &mut Silent);
    assert_eq!(step(&game), Some((true, by)), "{game:#?}");
    assert_eq!(game.rounds, 0);
}

/// The weight of the site with this op.
pub(super) fn weight(model: &Model, layer: Option<u32>, name: &str, i: usize) -> Weight {
    let site = model.sites(layer, name)[i];
    match model.program.sites[site as usize].op {
        Op::Linear { weight, .. } | Op::Embed { weight, .. } | Op::PosEmbed { weight, .. } => weight,
        _ => panic!("no weight"),
    }
}

/// Sets one byte of a tensor.
pub(super) fn set(model: &mut Model, id: u32, at: usize, byte: u8) {
    let t = &mut model.tensors[id as usize];
    let mut data = t.data().to_vec();
    data[at] = byte;
    *t = HostTensor::owned(t.dtype, t.rows, t.cols, data);
}

#[test]
fn convicts_a_claim_on_weights_or_multipliers_out_of_range() {
    let bounds = "the bounds of a weight's row";
    for (layer, name, i) in [
        (None, "embed", 0),
        (Some(0), "linear", 0),
        (Some(0), "linear", 3),
        (Some(1), "linear", 6),
    ] {
        let mut model = Model::new(2);
        let id = weight(&model, layer, name, i).q;
        let last = model.tensors[id as usize].data().len() - 1;
        set(&mut model, id, last - 70, 0x80);
        convicts(&model, bounds);
    }
    let mut model = Model::second(1);
    let id = weight(&model, None, "pos_embed", 0).q;
    set(&mut model, id, 7, 0x80);
    convicts(&model, bounds);
    for m in [0, 16, 255] {
        let mut model = Model::new(1);
        let id = weight(&model, None, "embed", 0).mult.unwrap();
        set(&mut model, id, 5, m);
        convicts(&model, bounds);
    }
}

#[test]
fn convicts_a_claim_on_a_weight_row_that_sums_to_too_much() {
    // 8,864 weights of 127 times 15 times 128 reach 2^31.
    let mut model = Model::wide(1, 8_864);
    let w = weight(&model, Some(0), "linear", 6);
    let row = 3;
    for (id, byte) in [(w.q, 127), (w.mult.unwrap(), 15)] {
        let t = &mut model.tensors[id as usize];
        let mut data = t.data().to_vec();
        data[row * t.cols..(row + 1) * t.cols].fill(byte);
        *t = HostTensor::owned(t.dtype, t.rows, t.cols, data);
    }
    convicts(&model, "the bounds of a weight's row");
    // One less a weight is below it.
    let t = &mut model.tensors[w.q as usize];
    let mut data = t.data().to_vec();
    data[row * t.cols..(row + 1) * t.cols].fill(125);
    *t = HostTensor::owned(t.dtype, t.rows, t.cols, data);
    assert!(ModelChallenger(model.pack()).fault(&judge(&model)).is_none());
}

#[test]
fn convicts_a_claim_on_a_tensor_of_another_type_or_shape() {
    let sound = Model::new(1);
    for site in &sound.program.sites {
        for need in needs(&sound.program, &site.op) {
            let bytes = |n: usize| vec![1; n];
            let (r, c, size) = (need.rows, need.cols, need.dtype.size());
            let same_size = match need.dtype {
                DType::I8 => Some(DType::U8),
                DType::U8 => Some(DType::I8),
                DType::I16 => None,
                DType::I32 => Some(DType::Scale),
                DType::Scale => Some(DType::I32),
            };
            let other_type = same_size.map(|t| HostTensor::owned(t, r, c, bytes(r * c * size)));
            for tensor in [
                HostTensor::owned(need.dtype, r + 1, c, bytes((r + 1) * c * size)),
                HostTensor::owned(need.dtype, r, c - 1, bytes(r * (c - 1) * size)),
            ]
            .into_iter()
            .chain(other_type)
            {
                let mut model = Model::new(1);
                model.tensors[need.id as usize] = tensor;
                convicts(&model, "a tensor's type and shape");
            }
        }
    }
}

#[test]
fn convicts_a_claim_on_a_program_that_names_a_tensor_which_is_not_there() {
    let mut model = Model::new(1);
    model.tensors.pop();
    model.names.pop();
    let guilty = Ground::Contradiction("the program names a tensor that the pack does not hold");
    assert_eq!(judge(&model).convicted(), Some(guilty));
    assert!(
        ReferenceDevice
            .load(model.program.clone(), &model.tensors)
            .is_err()
    );
}

#[test]
fn convicts_a_claim_on_a_program_that_no_device_loads() {
    let change = |f: &dyn Fn(&mut Program)| {
        let mut model = Model::new(1);
        f(Arc::make_mut(&mut model.program));
        assert!(
            ReferenceDevice
                .load(model.program.clone(), &model.tensors)
                .is_err()
        );
        let guilty = Ground::Contradiction("the program breaks the tensor spec");
        assert_eq!(judge(&model).convicted(), Some(guilty));
    };
    change(&|p| p.checkpoint_stride = 0);
    change(&|p| p.context = 0);
    change(&|p| p.vocab += 1);
    change(&|p| p.sites[3].inputs = vec![9]);
    change(&|p| p.sites.truncate(9));
    change(&|p| p.sites.clear());
}

#[test]
fn clears_a_claim_on_a_sound_model_of_every_such_accusation() {
    let model = Model::new(2);
    let pack = model.pack();
    assert!(ModelChallenger(model.pack()).fault(&judge(&model)).is_none());
    for (site, s) in (0u32..).zip(&model.program.sites) {
        for need in needs(&model.program, &s.op) {
            let (id, line) = (need.id, pack.open_line(need.id).unwrap());
            // The table of needs is the loader's, which took this model.
            let fault = ModelFault::Shape { site, id, line };
            let verdict = accuse(&mut judge(&model), &Accusation::Model(fault));
            let right = Verdict::Cleared(Ground::Step("a tensor's type and shape"));
            assert_eq!(verdict, Ok(right));
        }
        let (weight, n, k) = match s.op {
            Op::Linear { weight, n, k, .. } => (weight, n, k),
            Op::Embed { weight, .. } => (weight, VOCAB, D),
            _ => continue,
        };
        for row in [0, n - 1] {
            let w = pack.open_weights(&weight, k, row, 0..k).unwrap();
            let fault = ModelFault::Row { site, row, w };
            let verdict = accuse(&mut judge(&model), &Accusation::Model(fault));
            let right = Verdict::Cleared(Ground::Step("the bounds of a weight's row"));
            assert_eq!(verdict, Ok(right));
        }
    }
}

#[test]
fn rejects_model_faults_about_other_tensors_rows_or_bytes() {
    let model = Model::new(1);
    let pack = model.pack();
    let w = weight(&model, Some(0), "linear", 0);
    let site = model.sites(Some(0), "linear")[0];
    let refused = |fault| {
        let mut judge = judge(&model);
        let verdict = accuse(&mut judge, &Accusation::Model(fault));
        assert!(verdict.is_err(), "{verdict:?}");
        assert_eq!((judge.convicted(), judge.verdict(WHO)), (None, None));
    };
    let line = |id| pack.open_line(id).unwrap();
    let other = weight(&model, Some(0), "linear", 1).q;
    refused(ModelFault::Shape {
        site,
        id: other,
        line: line(other),
    });
    refused(ModelFault::Shape {
        site,
        id: w.q,
        line: line(other),
    });
    let mut renamed = line(w.q);
    renamed.line.rows += 1;
    refused(ModelFault::Shape {
        site,
        id: w.q,
        line: renamed,
    });
    let open = |row| pack.open_weights(&w, D, row, 0..D).unwrap();
    refused(ModelFault::Row {
        site,
        // Another chunk than row 0's: openings are of whole chunks.
        row: 17,
        w: open(0),
    });
    refused(ModelFault::Row {
        site,
        row: 64,
        w: open(0),
    });
    refused(ModelFault::Row {
        site: site + 1,
        row: u32::MAX,
        w: open(0),
    });
    refused(ModelFault::Row {
        site: 999,
        row: 0,
        w: open(0),
    });
    let mut bad = open(0);
    bad.q.range.0[0].bytes[5] = 0x80;
    refused(ModelFault::Row { site, row: 0, w: bad });
    // It rests on the claim, so one of another claim does not count here.
    let mut here = judge(&model);
    let fault = Accusation::Model(ModelFault::Row {
        site,
        row: 0,
        w: open(0),
    });
    assert_eq!(here.accuse(WHO, [9; 32], &fault), Err(DisputeError::OtherAnswer));
}
