"""RadImageNet's 165 classes, their folders, and about how many images each has."""

import difflib
from dataclasses import dataclass
from typing import final

# Folder of the site, then `class:images`. The names are facts of the dataset. The numbers are ESTIMATES, good enough
# to give a phantom its long tail and for nothing else: no per-class count of RadImageNet is published as a table.
# - MR: counts by class name and by body part of the 604,775 MR images of RadImageNet-VQA's alignment set, as a public
#   training log prints them (not checked against arXiv 2512.17396), taken as 90 % of RadImageNet. Most names occur
#   at one body part only; the others were shared out by iterative proportional fitting, started from another
#   benchmark's sample of the classes. Check: this gives 72,579 images of MR/abd/normal, where a count of the real
#   folder found 72,054.
# - CT: 228,902 / .9 in all (same source) with 69,238 of CT/abd/normal (a count of the real folder); the others in
#   proportion to that sample to the power 1.13, which is how sample and MR counts are related (74 classes,
#   a class scatters by a factor of 1.9).
# - US: what is left of 1.35 million, in proportion to the same power of the sample.
_TABLE = """
CT/abd abnormal_entire_organ:739 adrenal_pathology:2798 arterial_pathology:3289 ascites:2476 bil_dil:1617
    bladder_pathology:2880 bowel_abnormality:8106 bowel_inflammation:7016 bowel_mass:1847 degenerative_changes:214
    dilated_urinary_tract:2557 fat_containing_tumor:1023 gallbladder_pathology:214 gallstone:2880
    intraperitoneal_mass:1693 liver_lesion:10336 normal:69238 osseous_neoplasm:3957 ovarian_pathology:2397
    pancreatic_lesion:3043 post_op:4724 prostate_lesion:1617 renal_lesion:9679 soft_tissue_collection:214
    soft_tissue_mass:809 splenic_lesion:1466 urolithiasis:3372 uterine_pathology:3538
CT/lung Airspace_opacity:31761 Bronchiectasis:3621 Nodule:20973 Parenchyma_destruction:2961
    interstitial_lung_disease:8015 normal:33264
MR/abd adrenal_pathology:646 arterial_pathology:84 ascites:777 bil_dil:240 bladder_pathology:144 bowel_abnormality:168
    bowel_inflammation:266 bowel_mass:103 degenerative_changes:183 dilated_urinary_tract:61 enlarged_organ:203
    gallbladder_pathology:482 intraperitoneal_mass:893 liver_disease_:1079 liver_lesion:3319 marrow_abn:721
    normal:72579 osseous_neoplasm:490 ovarian_pathology:1859 pancreatic_lesion:1107 prostate_lesion:72
    renal_lesion:2038 soft_tissue_collection:179 soft_tissue_mass:229 splenic_lesion:238 uterine_pathology:3577
MR/af Plantar_plate_tear:666 achilles_pathology_:9197 atfl_pathology:12021 bone_inflammation:30485 cfl_pathology:4279
    chondral_abnormality:29972 coalition:64 deltoid_pathology:2753 extensor_pathology_:687 fat_containing_tumor:271
    flexor_pathology_:3621 hematoma:399 intra:750 lisfranc_pathology:52 normal:9984 osseous_disruption:12022
    osseous_neoplasm:973 peroneal_pathology:7321 plantar_fascia_pathology:6391 post_op:2399 soft_tissue_edema:8032
    soft_tissue_fluid:29636 soft_tissue_mass:8111 spring_ligament_injury:108 syndesmosis_pathology:381
MR/brain acute_infarct:498 arteriovenous_anomaly:268 chronic_infarct:2267 edema:123 extra:1237 focal_flair_hyper:747
    intra:1800 normal:27225 pituatary_lesion:77 white_matter_changes:10206
MR/hip abductor_pathology_:850 capsular_pathology:121 chondral_pathology:8067 hamstring_pathology:236 hematoma:294
    labral_pathology:18609 marrow_inflammation:3961 normal:6727 osseous_disruption:1118 osseous_lesion:1512
    post_op:2436 soft_tissue_edema:3091 soft_tissue_fluid:3948 soft_tissue_mass:672
MR/knee acl_pathology:10066 bone_inflammation:9625 chondral_abnormality:64553 fcl_pathology:453 fracture:1558
    hematoma:137 intra:4066 mcl_pathology:7914 meniscal_abnormality:44998 muscle_strain:516 normal:5214
    patella_pathology:1407 pcl_pathology:741 post_operative_acl:86 quad_pathology:500 soft_tissue_edema:1858
    soft_tissue_fluid_collection:25622 soft_tissue_mass:402
MR/shoulder acj_oa:2658 biceps_pathology:1611 ca++_tendinosis:77 ghj_oa:2909 infraspinatus_pathology:89
    labral_pathology:21573 marrow_inflammation:811 normal:2595 osseous_lesion:1114 post_op:1453 soft_tissue_edema:4454
    soft_tissue_fluid:7766 subscapularis_pathology:142 supraspinatus_pathology:5200
MR/spine cord_pathology_:713 cystic_lesions:1357 disc_pathology:32633 dural_epidural_abn:8233 facet_arthropathy:361
    foraminal_pathlogy:11928 normal:11847 osseous_abn:2328 scoliosis:2008
US aorta:27898 bladder:5062 cbd:30959 fibroid:12851 gb:36736 ivc:6330 kidney:57249 liver:50453 ovary:28769
    pancreas:29862 portal_vein:6330 spleen:14654 thyroid:55600 thyroid_nodule:36064 uterus:24875"""


@final
@dataclass(frozen=True)
class Finding:
    """One class.

    Attributes:
        modality: "CT", "MR" or "US".
        anatomy: the folder's name of the body part ("abd", "af" is ankle and foot); "" for US, which has none.
        name: the class folder's name; the same name at another body part is another class.
        images: about how many images RadImageNet has, an estimate (see above).
    """

    modality: str
    anatomy: str
    name: str
    images: int

    @property
    def site(self) -> str:
        """Modality and anatomy as in the path: "CT/abd", "US"."""
        return f"{self.modality}/{self.anatomy}" if self.anatomy else self.modality

    @property
    def folder(self) -> str:
        """The class folder below `radiology_ai`: "CT/abd/normal", "US/liver"."""
        return f"{self.site}/{self.name}"


def _parse(table: str) -> tuple[Finding, ...]:
    found: list[Finding] = []
    site = ""
    for word in table.split():
        name, colon, images = word.rpartition(":")
        if not colon:
            site = word
            continue
        modality, _, anatomy = site.partition("/")
        found.append(Finding(modality, anatomy, name, int(images)))
    return tuple(sorted(found, key=lambda finding: finding.folder))


# In the order of the labels: by folder, capital letters first.
CLASSES = _parse(_TABLE)
LABELS = {finding.folder: label for label, finding in enumerate(CLASSES)}
SITES = tuple(sorted({finding.site for finding in CLASSES}))


def nearest(folder: str) -> str:
    """Return the class folder that is spelt most like `folder`."""
    lowered = {known.lower(): known for known in LABELS}
    return lowered[difflib.get_close_matches(folder.lower(), list(lowered), n=1, cutoff=0.0)[0]]
