"""Since when an engine knows an architecture.

The release named here is the first one that may know it: an older one does not, a newer one is not judged. `X.post1` says
that release X was looked into and did not know it.

Sources: vLLM's `model_executor/models/registry.py` (before 0.5.5 `__init__.py`) in each of its packages from 0.4.1 to 0.33.0; 0.6.1 came
without a Transformers that knows Qwen2-VL, and 0.6.2 failed of its rope_scaling (vllm-project/vllm, issues 8682 and 9236).
SGLang: `EntryClass` of each module of `srt/models` in its packages 0.4.0 to 0.5.23, of each minor release and some of those between; from
0.4.9 on it falls back to Transformers, and the releases of Transformers that its packages up to 0.5.3 ask for have no such model either.
TGI: `models/__init__.py` at its tags 3.1.0 to 3.2.2; it falls back to Transformers too, which had none of these
models when the older tags were made (Qwen2.5-VL came with 4.49 of 2025-02-17, Gemma 3 with 4.50 of 2025-03-21, Llama
4 and Qwen3 with 4.51 of 2025-04-05).
llama.cpp: the names in `src/llama-arch.cpp` (before `src/llama.cpp`) of its builds b3995, b4234, b4529, b4753, b4980, b5415,
b5640, b6133, b6431, b6673, b7347, b7836, b8121, b8390, b10068, b10361; a row names the build after the last one that has no
such name. What other builds ran under an older name (DeepSeek V3.2 as DeepSeek V2, Mistral 3 as Llama) has no row.
TensorRT-LLM: docs/source/release-notes.md of 0.19 to 1.2, its PyTorch backend; GPT-OSS, GLM 4.5 and DeepSeek V3.2 were
published after the releases that are said not to know them.
Transformers: `CONFIG_MAPPING_NAMES` in its packages 4.46.0 to 5.3.0 (each minor release), 5.5.0, 5.9.0, 5.15.0, 5.20.0, 5.24.0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

#: By release of vLLM the classes that its registry has and that of the release before had not.
_VLLM_REGISTRY: Mapping[str, str] = {
    "0.4.1": "MiniCPMForCausalLM",
    "0.4.2": "OlmoForCausalLM Phi3ForCausalLM",
    "0.4.3": "ArcticForCausalLM MistralModel Phi3SmallForCausalLM",
    "0.5.0": "LlavaNextForConditionalGeneration",
    "0.5.1": "DeepseekV2ForCausalLM Gemma2ForCausalLM JambaForCausalLM MLPSpeculatorPreTrainedModel Phi3VForCausalLM",
    "0.5.2": "FuyuForCausalLM MedusaModel PaliGemmaForConditionalGeneration PersimmonForCausalLM",
    "0.5.3": "ChameleonForCausalLM ChameleonForConditionalGeneration",
    "0.5.4": "Blip2ForConditionalGeneration InternVLChatModel MiniCPMV NemotronForCausalLM",
    "0.5.5": "BartForConditionalGeneration BartModel EAGLEModel UltravoxModel",
    "0.6.0": "ExaoneForCausalLM GraniteForCausalLM PhiMoEForCausalLM",
    "0.6.1": "LlavaNextVideoForConditionalGeneration PixtralForConditionalGeneration Qwen2VLForConditionalGeneration",
    "0.6.2": (
        "LlavaOnevisionForConditionalGeneration MiniCPM3ForCausalLM MllamaForConditionalGeneration "
        "OlmoeForCausalLM SolarForCausalLM"
    ),
    "0.6.3": "Gemma2Model GraniteMoeForCausalLM MambaForCausalLM MolmoForCausalLM NVLM_D Qwen2ForRewardModel",
    "0.6.4": (
        "BertModel FalconMambaForCausalLM Florence2ForConditionalGeneration H2OVLChatModel "
        "Idefics3ForConditionalGeneration InternLM2VEForCausalLM LlamaModel Qwen2AudioForConditionalGeneration "
        "Qwen2ForSequenceClassification Qwen2Model RobertaModel XLMRobertaModel"
    ),
    "0.6.5": (
        "AriaForConditionalGeneration BertForSequenceClassification Cohere2ForCausalLM GlmForCausalLM GritLM "
        "MantisForConditionalGeneration Olmo2ForCausalLM RobertaForMaskedLM RobertaForSequenceClassification "
        "TeleChat2ForCausalLM XLMRobertaForSequenceClassification"
    ),
    "0.6.6": "DeepseekV3ForCausalLM JambaForSequenceClassification",
    "0.7.0": (
        "DeepseekVLV2ForCausalLM Fairseq2LlamaForCausalLM InternLM2ForRewardModel InternLM3ForCausalLM "
        "Qwen2ForProcessRewardModel WhisperForConditionalGeneration"
    ),
    "0.7.1": "MiniCPMO",
    "0.7.2": "Qwen2_5_VLForConditionalGeneration",
    "0.7.3": (
        "BambaForCausalLM DeepSeekMTPModel GLM4VForCausalLM Mamba2ForCausalLM PrithviGeoSpatialMAE "
        "QwenVLForConditionalGeneration"
    ),
    "0.8.0": (
        "Gemma3ForCausalLM Gemma3ForConditionalGeneration GraniteMoeSharedForCausalLM Grok1ModelForCausalLM "
        "Phi4MMForCausalLM Zamba2ForCausalLM"
    ),
    "0.8.2": "TeleFLMForCausalLM",
    "0.8.3": (
        "AyaVisionForConditionalGeneration Llama4ForCausalLM Llama4ForConditionalGeneration "
        "MiniMaxText01ForCausalLM Mistral3ForConditionalGeneration SkyworkR1VChatModel"
    ),
    "0.8.4": (
        "EagleLlamaForCausalLM Glm4ForCausalLM Qwen3ForCausalLM Qwen3MoeForCausalLM SmolVLMForConditionalGeneration"
    ),
    "0.8.5": (
        "Eagle3LlamaForCausalLM GraniteSpeechForConditionalGeneration GteModel KimiVLForConditionalGeneration "
        "ModernBertForSequenceClassification NomicBertModel Plamo2ForCausalLM Qwen2_5OmniModel"
    ),
    "0.9.0": (
        "FalconH1ForCausalLM GraniteMoeHybridForCausalLM GteNewModel MiMoForCausalLM MiMoMTPModel "
        "MiniMaxVL01ForConditionalGeneration ModernBertModel Ovis Qwen2_5OmniForConditionalGeneration"
    ),
    "0.9.1": "EagleMiniCPMForCausalLM NemotronHForCausalLM TarsierForConditionalGeneration",
    "0.9.2": (
        "Dots1ForCausalLM Ernie4_5_ForCausalLM Ernie4_5_MoeForCausalLM GPT2ForSequenceClassification "
        "Gemma3nForConditionalGeneration Glm4vForConditionalGeneration HunYuanMoEV1ForCausalLM "
        "KeyeForConditionalGeneration MiniMaxM1ForCausalLM Qwen3ForSequenceClassification "
        "Tarsier2ForConditionalGeneration"
    ),
    "0.10.0": (
        "ArceeForCausalLM BailingMoeForCausalLM EagleLlama4ForCausalLM Exaone4ForCausalLM Glm4MoeForCausalLM "
        "Glm4MoeMTPModel HunYuanDenseV1ForCausalLM JinaVLForRanking Llama_Nemotron_Nano_VL MiniMaxForCausalLM "
        "Phi4FlashForCausalLM VoxtralForConditionalGeneration"
    ),
    "0.10.1": (
        "Cohere2VisionForConditionalGeneration Emu3ForConditionalGeneration Ernie4_5ForCausalLM "
        "Gemma3nForCausalLM Glm4vMoeForConditionalGeneration GptOssForCausalLM HCXVisionForCausalLM "
        "InternS1ForConditionalGeneration MBartForConditionalGeneration Phi4MultimodalForCausalLM "
        "SmolLM3ForCausalLM Step3TextForCausalLM Step3VLForConditionalGeneration"
    ),
    "0.10.2": (
        "ApertusForCausalLM DonutForConditionalGeneration EagleDeepSeekMTPModel "
        "Ernie4_5_VLMoeForConditionalGeneration ErnieMTPModel Gemma3TextModel GteNewForSequenceClassification "
        "InternVLForConditionalGeneration KeyeVL1_5ForConditionalGeneration Lfm2ForCausalLM "
        "LlamaForCausalLMEagle3 MiDashengLMModel MotifForCausalLM NemotronH_Nano_VL Ovis2_5 Qwen3NextForCausalLM "
        "Qwen3NextMTP RForConditionalGeneration SeedOssForCausalLM Terratorch"
    ),
    "0.11.0": (
        "BailingMoeV2ForCausalLM BertForTokenClassification CwmForCausalLM DeepseekV32ForCausalLM "
        "DotsOCRForCausalLM LongCatFlashMTPModel LongcatFlashForCausalLM NemotronH_Nano_VL_V2 Olmo3ForCausalLM "
        "Qwen3VLForConditionalGeneration Qwen3VLMoeForConditionalGeneration"
    ),
    "0.11.1": (
        "AfmoeForCausalLM BeeForConditionalGeneration BertSpladeSparseEmbeddingModel CLIPModel "
        "DeepseekOCRForCausalLM Eagle3Qwen2_5vlForCausalLM FlexOlmoForCausalLM KimiLinearForCausalLM "
        "Lfm2MoeForCausalLM LightOnOCRForConditionalGeneration MiniMaxM2ForCausalLM "
        "ModernBertForTokenClassification OpenPanguMTPModel OuroForCausalLM PaddleOCRVLForConditionalGeneration "
        "PanguEmbeddedForCausalLM PanguUltraMoEForCausalLM Qwen3OmniMoeForConditionalGeneration SiglipModel"
    ),
    "0.12.0": (
        "Eagle3Qwen3vlForCausalLM EagleMistralLarge3ForCausalLM HunYuanVLForConditionalGeneration "
        "MistralLarge3ForCausalLM OpenCUAForConditionalGeneration Plamo3ForCausalLM TeleChatForCausalLM"
    ),
    "0.13.0": "AudioFlamingo3ForConditionalGeneration BagelForConditionalGeneration Jais2ForCausalLM",
    "0.14.0": (
        "ExaoneMoEForCausalLM ExaoneMoeMTP GlmAsrForConditionalGeneration Grok1ForCausalLM IQuestCoderForCausalLM "
        "IQuestLoopCoderForCausalLM IsaacForConditionalGeneration KananaVForConditionalGeneration "
        "Lfm2VlForConditionalGeneration LlamaBidirectionalForSequenceClassification LlamaBidirectionalModel "
        "MiMoV2FlashForCausalLM NemotronParseForConditionalGeneration PanguProMoEV2ForCausalLM "
        "VoxtralStreamingGeneration"
    ),
    "0.15.0": (
        "BgeM3EmbeddingModel Eagle2_5_VLForConditionalGeneration Glm4MoeLiteForCausalLM Glm4MoeLiteMTPModel "
        "KimiK25ForConditionalGeneration Molmo2ForConditionalGeneration Step1ForCausalLM "
        "StepVLForConditionalGeneration"
    ),
    "0.15.1": "Step3p5ForCausalLM Step3p5MTP",
    "0.16.0": (
        "DeepseekOCR2ForCausalLM FunAudioChatForConditionalGeneration GlmMoeDsaForCausalLM "
        "GlmOcrForConditionalGeneration GlmOcrMTPModel InternS1ProForConditionalGeneration "
        "MusicFlamingoForConditionalGeneration NemotronHPuzzleForCausalLM OpenPanguVLForConditionalGeneration "
        "Qwen3ASRForConditionalGeneration VoxtralRealtimeGeneration VoyageQwen3BidirectionalEmbedModel"
    ),
    "0.17.0": (
        "AXK1ForCausalLM BailingMoeV2_5ForCausalLM ColBERTJinaRobertaModel ColBERTModernBertModel "
        "ColModernVBertForRetrieval ColQwen3 ExtractHiddenStatesModel FireRedASR2ForConditionalGeneration "
        "FunASRForConditionalGeneration LlamaNemotronVLForSequenceClassification LlamaNemotronVLModel "
        "NemotronHMTPModel OpsColQwen3Model Ovis2_6ForCausalLM Ovis2_6_MoeForCausalLM Qwen3ASRRealtimeGeneration "
        "Qwen3VLNemotronEmbedModel Qwen3_5ForConditionalGeneration Qwen3_5MTP Qwen3_5MoeForConditionalGeneration "
        "Qwen3_5MoeMTP"
    ),
    "0.18.0": (
        "ColPaliForRetrieval Eagle3DeepseekV2ForCausalLM Eagle3DeepseekV3ForCausalLM "
        "ErnieForSequenceClassification ErnieForTokenClassification ErnieModel HCXVisionV2ForCausalLM "
        "HyperCLOVAXForCausalLM MoonshotKimiaForCausalLM OlmoHybridForCausalLM SarvamMLAForCausalLM "
        "SarvamMoEForCausalLM"
    ),
    "0.19.0": (
        "CohereAsrForConditionalGeneration ColBERTLfm2Model ColQwen3_5 Gemma4ForCausalLM "
        "Gemma4ForConditionalGeneration Qwen3ASRForcedAlignerForTokenClassification"
    ),
    "0.20.0": (
        "CheersForConditionalGeneration DFlashDraftModel DeepSeekV4MTPModel DeepseekV4ForCausalLM "
        "Eagle3MiniMaxM2ForCausalLM Exaone4_5_ForConditionalGeneration Exaone4_5_MTP "
        "FireRedLIDForConditionalGeneration Granite4VisionForConditionalGeneration HYV3ForCausalLM HYV3MTPModel "
        "JinaEmbeddingsV5Model JinaForRanking Ministral3ForCausalLM NemotronH_Nano_Omni_Reasoning_V3 "
        "NemotronH_Super_Omni_Reasoning_V3 Param2MoEForCausalLM Phi4ForCausalLMV Rnj1ForCausalLM "
        "TeleChat3ForCausalLM"
    ),
    "0.21.0": (
        "Cohere2MoeForCausalLM EagleCohereForCausalLM EagleMistralForCausalLM Gemma4MTPModel HfMoondream "
        "LagunaForCausalLM MiMoV2ForCausalLM MiMoV2MTPModel MiMoV2OmniForCausalLM MiMoV2OmniMTPModel "
        "Moondream3ForCausalLM QianfanOCRForConditionalGeneration"
    ),
    "0.22.0": (
        "InternS2PreviewForConditionalGeneration MiniCPMV4_6ForConditionalGeneration OpenVLAForActionPrediction "
        "PEagleDraftModel PeagleLlamaForCausalLM"
    ),
    "0.22.1": "MellumForCausalLM",
    "0.23.0": (
        "Cosmos3ForConditionalGeneration Gemma4UnifiedForConditionalGeneration "
        "GraniteSpeechPlusForConditionalGeneration Step3p7ForConditionalGeneration"
    ),
    "0.24.0": (
        "DiffusionGemmaForBlockDiffusion Eagle3Qwen3ForCausalLM HrmTextForCausalLM MiniMaxM3MTP "
        "MiniMaxM3SparseForCausalLM MiniMaxM3SparseForConditionalGeneration MossAudioModel PeagleQwen3ForCausalLM"
    ),
    "0.25.0": (
        "BailingMoeV25MTPModel DFlashLagunaForCausalLM DSparkDraftModel LlavaOnevision2ForConditionalGeneration "
        "MossTranscribeDiarizeForConditionalGeneration OpenAIPrivacyFilterForTokenClassification Qwen3DSparkModel "
        "UnlimitedOCRForCausalLM"
    ),
    "0.26.0": (
        "BertForMaskedLM Cosmos3EdgeForConditionalGeneration Gemma4DSparkModel InklingForCausalLM "
        "InklingForConditionalGeneration InklingMTPModel LongcatFlashNgramForCausalLM "
        "RobertaForTokenClassification XLMRobertaForTokenClassification"
    ),
    "0.27.0": (
        "ExaoneMoeForCausalLM K3DSparkModel KimiK3ForConditionalGeneration KimiK3MTPModel Qwen3_5ForCausalLM "
        "Qwen3_5MoeForCausalLM VaultGemmaForCausalLM VibeVoiceAsrForConditionalGeneration"
    ),
    "0.28.0": (
        "BailingMoeV3ForCausalLM BailingMoeV3MTPModel DFlash2DraftModel DFlashMuseGlimmerAssistantModel "
        "Dots3NoteForCausalLM Dots3NoteMTPModel InternS2MobiusForConditionalGeneration InternS2MobiusMTP "
        "MuseGlimmerAssistantModel MuseGlimmerForCausalLM MuseGlimmerForConditionalGeneration"
    ),
    "0.29.0": (
        "DeepseekV32MTPModel DeepseekV3BidirectionalModel GraniteMoeSWAForCausalLM GraniteSWAForCausalLM "
        "HYV4ForCausalLM HYV4MTPModel NemotronH_Omni_Reasoning_V3 Qwen3OmniDSparkModel Qwen4ExpForCausalLM "
        "Qwen4ExpForConditionalGeneration Qwen4ExpMTP"
    ),
    "0.30.0": (
        "BailingMoeV3VLForConditionalGeneration CohereCompassForConditionalGeneration DSparkV41DraftModel "
        "DeepseekV41ForCausalLM DeepseekV4ForConditionalGeneration Glm5NextForCausalLM "
        "Glm5NextForConditionalGeneration Glm5NextMTPModel K2HorizonForCausalLM NanbeigeForCausalLM"
    ),
    "0.31.0": "LiLiCorrDraftModel",
    "0.32.0": "ClefOmniForJointSchema EmbeddingGemma2Model MiniCPMV4_7ForConditionalGeneration",
    "0.33.0": (
        "AliceAIForCausalLM Alpamayo2Super BeamForCausalLM ClefFlashForJointSchema ColUltraVBertForRetrieval "
        "D3ForSequenceClassification DFlash2BeamDraftModel DFlashQwen3XPressModel DomynEdgeForCausalLM "
        "DoryForCausalLM FlintForCausalLM Kolibri1ForCausalLM Lfm2BidirectionalModel "
        "MiniCPMOcrForConditionalGeneration ModernVBertModel MuseSparkDSparkModel "
        "MuseSparkForConditionalGeneration ParseAuxMTPModel Qwen3XPressModel RadioMBartPrefixForCausalLM "
        "Step5ForCausalLM Step5ForConditionalGeneration Step5MTP"
    ),
}
#: Classes that vLLM refuses where its registry lacks them: what Transformers had then, by which it runs others, did not know them.
_VLLM_ALONE = (
    "Gemma2ForCausalLM Qwen2VLForConditionalGeneration MllamaForConditionalGeneration "
    "DeepseekV3ForCausalLM Qwen2_5_VLForConditionalGeneration Gemma3ForCausalLM "
    "Gemma3ForConditionalGeneration Llama4ForConditionalGeneration Qwen3ForCausalLM Qwen3MoeForCausalLM "
    "NemotronHForCausalLM Glm4MoeForCausalLM GptOssForCausalLM Qwen3NextForCausalLM "
    "DeepseekV32ForCausalLM Qwen3VLForConditionalGeneration Qwen3VLMoeForConditionalGeneration "
    "MiniMaxM2ForCausalLM Glm4MoeLiteForCausalLM GlmMoeDsaForCausalLM KimiK25ForConditionalGeneration "
    "Qwen3_5ForConditionalGeneration Qwen3_5MoeForConditionalGeneration Gemma4ForConditionalGeneration "
    "DeepseekV4ForCausalLM Gemma4UnifiedForConditionalGeneration MiniMaxM3SparseForConditionalGeneration"
)
#: The same of SGLang, by the releases that were looked into.
_SGLANG_CLASSES: Mapping[str, str] = {
    "0.4.1": "DeepseekV3ForCausalLM GraniteForCausalLM",
    "0.4.2": "Cohere2ForCausalLM InternLM3ForCausalLM LlamaForCausalLMEagle MiniCPMV Qwen2ForCausalLMEagle",
    "0.4.3.post2": "DeepseekV3ForCausalLMNextN Qwen2_5_VLForConditionalGeneration",
    "0.4.4": "MultiModalityCausalLM Qwen2ForRewardModel",
    "0.4.5": (
        "CLIPModel DeepseekVL2ForCausalLM Gemma3ForCausalLM Gemma3ForConditionalGeneration Llama4ForCausalLM "
        "Llama4ForConditionalGeneration LlamaForCausalLMEagle3 MiniCPMO"
    ),
    "0.4.6": "BertModel Contriever Qwen3ForCausalLM Qwen3MoeForCausalLM XLMRobertaModel",
    "0.4.6.post5": (
        "InternVLChatModel KimiVLForConditionalGeneration LlavaForConditionalGeneration MiMoForCausalLM MiMoMTP "
        "Mistral3ForConditionalGeneration PixtralVisionModel"
    ),
    "0.4.7": "Phi4MMForCausalLM TransformersForCausalLM",
    "0.4.8": (
        "BertForSequenceClassification Glm4ForCausalLM VILAForConditionalGeneration XLMRobertaForSequenceClassification"
    ),
    "0.4.9": (
        "Gemma3nForCausalLM Gemma3nForConditionalGeneration HunYuanMoEV1ForCausalLM Qwen2AudioForConditionalGeneration"
    ),
    "0.4.9.post6": (
        "Glm4MoeForCausalLM Glm4MoeForCausalLMNextN GraniteMoeForCausalLM HunYuanDenseV1ForCausalLM "
        "InternS1ForConditionalGeneration PersimmonForCausalLM PhiForCausalLM PhiMoEForCausalLM"
    ),
    "0.4.10": "ArceeForCausalLM Step3VLForConditionalGeneration",
    "0.5.1": (
        "BailingMoeForCausalLM DeciLMForCausalLM Ernie4_5_ForCausalLM Ernie4_5_MoeForCausalLM "
        "Ernie4_5_MoeForCausalLMMTP Glm4vForConditionalGeneration Glm4vMoeForConditionalGeneration "
        "GptOssForCausalLM Qwen3ForSequenceClassification"
    ),
    "0.5.2": (
        "LongcatFlashForCausalLM LongcatFlashForCausalLMNextN OPTForCausalLM Qwen3NextForCausalLM "
        "Qwen3NextForCausalLMMTP"
    ),
    "0.5.3": (
        "ApertusForCausalLM BailingMoEForCausalLM BailingMoeForCausalLMNextN BailingMoeV2ForCausalLM "
        "DeepseekV32ForCausalLM DotsOCRForCausalLM DotsVLMForCausalLM FalconH1ForCausalLM "
        "Qwen3VLForConditionalGeneration Qwen3VLMoeForConditionalGeneration Sarashina2VisionForCausalLM "
        "SolarForCausalLM Starcoder2ForCausalLM"
    ),
    "0.5.4": "DeepseekOCRForCausalLM NemotronHForCausalLM POINTSV15ChatModel Qwen3OmniMoeForConditionalGeneration",
    "0.5.5": (
        "KimiLinearForCausalLM MiniMaxM2ForCausalLM NVILAForConditionalGeneration NVILALiteForConditionalGeneration"
    ),
    "0.5.6": (
        "JetNemotronForCausalLM JetVLMForConditionalGeneration LLaDA2MoeModelLM MindSporeForCausalLM "
        "NemotronH_Nano_VL_V2 OrionForCausalLM TeleFLMForCausalLM"
    ),
    "0.5.7": (
        "GlmAsrForConditionalGeneration MiDashengLMModel MiMoV2FlashForCausalLM MiMoV2MTP Ministral3ForCausalLM "
        "MistralLarge3ForCausalLM MistralLarge3ForCausalLMEagle PaddleOCRVLForConditionalGeneration "
        "PixtralForConditionalGeneration"
    ),
    "0.5.8": (
        "AfmoeForCausalLM Glm4MoeLiteForCausalLM IQuestCoderForCausalLM IQuestLoopCoderForCausalLM "
        "NemotronHForCausalLMMTP"
    ),
    "0.5.9": (
        "BailingMoeV2_5ForCausalLM Ernie4_5_VLMoeForConditionalGeneration Exaone4ForCausalLM ExaoneMoEForCausalLM "
        "ExaoneMoEForCausalLMMTP GPTJForCausalLM GlmMoeDsaForCausalLM GlmOcrForConditionalGeneration "
        "GlmOcrForConditionalGenerationNextN GraniteMoeHybridForCausalLM InternS1ProForConditionalGeneration "
        "KimiK25ForConditionalGeneration Lfm2ForCausalLM Lfm2MoeForCausalLM LightOnOCRForConditionalGeneration "
        "Qwen3ForRewardModel Qwen3_5ForCausalLMMTP Qwen3_5ForConditionalGeneration "
        "Qwen3_5MoeForConditionalGeneration SDARForCausalLM SDARMoeForCausalLM Step3p5ForCausalLM Step3p5MTP "
        "StepVLForConditionalGeneration"
    ),
    "0.5.10": (
        "Lfm2VlForConditionalGeneration SarvamMLAForCausalLM SarvamMoEForCausalLM TransformersEmbeddingModel "
        "TransformersForSequenceClassification TransformersMoEEmbeddingModel TransformersMoEForCausalLM "
        "TransformersMoEForSequenceClassification TransformersMultiModalEmbeddingModel "
        "TransformersMultiModalForCausalLM TransformersMultiModalForSequenceClassification "
        "TransformersMultiModalMoEEmbeddingModel TransformersMultiModalMoEForCausalLM "
        "TransformersMultiModalMoEForSequenceClassification WhisperForConditionalGeneration"
    ),
    "0.5.11": (
        "DFlashDraftModel Gemma4ForCausalLM Gemma4ForConditionalGeneration HYV3ForCausalLM HYV3ForCausalLMNextN "
        "MiMoV2ForCausalLM MistralForCausalLMEagle MossVLForConditionalGeneration "
        "NemotronH_Nano_Omni_Reasoning_V3 Qwen3ASRForConditionalGeneration VoxtralForConditionalGeneration"
    ),
    "0.5.12": (
        "DeepseekV4ForCausalLM DeepseekV4ForCausalLMNextN Eagle3DeepseekV2ForCausalLM Gemma4AssistantForCausalLM "
        "InternS2PreviewForConditionalGeneration LagunaForCausalLM MiniCPMV4_6ForConditionalGeneration"
    ),
    "0.5.13": (
        "Cohere2MoeForCausalLM Cohere2VisionForConditionalGeneration Gemma4UnifiedAssistantForCausalLM "
        "Gemma4UnifiedForConditionalGeneration Glm4MoeLiteForCausalLMNextN NemotronHPuzzleForCausalLM "
        "Qwen3MoeForCausalLMMTP Step3p7ForConditionalGeneration"
    ),
    "0.5.14": "MiMoV2ASRForCausalLM ZayaForCausalLM",
    "0.5.15": (
        "DFlashLagunaForCausalLM HrmTextForCausalLM LocateAnythingForConditionalGeneration UnlimitedOCRForCausalLM"
    ),
    "0.5.16": (
        "DeepseekV4ForCausalLMDSpark GlmImageForConditionalGeneration GlmMoeDsaForCausalLMNextN "
        "InklingForConditionalGeneration InklingForConditionalGenerationMTP MellumForCausalLM "
        "MiniMaxM3SparseForCausalLM MiniMaxM3SparseForConditionalGeneration Qwen3DSparkModel"
    ),
    "0.5.17": (
        "DSparkDraftModel EmbeddingGemmaModel KimiK3ForConditionalGeneration Lfm2BidirectionalModel Qwen3Model "
        "Qwen3_5ForCausalLM Qwen3_5MoeForCausalLM"
    ),
    "0.5.18": (
        "InternS2MobiusForConditionalGeneration MuseGlimmerAssistantModel MuseGlimmerForCausalLM "
        "MuseGlimmerForConditionalGeneration"
    ),
    "0.5.19": (
        "BailingMoeV3ForCausalLM DFlash2DraftModel Dots3NoteForCausalLM Dots3NoteForCausalLMNextN "
        "GraniteMoeSWAForCausalLM GraniteMoeSharedForCausalLM GraniteSWAForCausalLM KimiK3LinearForCausalLM "
        "Lfm2DSparkDraftModel LingDSparkModel MiniCPMSALAForCausalLM Spark2_5ForCausalLM"
    ),
    "0.5.20": (
        "Cosmos3EdgeForConditionalGeneration Cosmos3ForConditionalGeneration FalconMambaForCausalLM "
        "Glm5NextForConditionalGeneration Glm5NextForConditionalGenerationNextN HYV4ForCausalLM "
        "HYV4ForCausalLMNextN K2HorizonForCausalLM Mamba2ForCausalLM MambaForCausalLM NanbeigeForCausalLM "
        "NanbeigeForSequenceClassification NemotronH_Omni_Reasoning_V3 Qwen2ForSequenceClassification "
        "Qwen4ExpForCausalLMMTP Qwen4ExpForConditionalGeneration XllmForCausalLM"
    ),
    "0.5.21": (
        "BailingMM2NativeForConditionalGeneration BailingMMNativeForConditionalGeneration "
        "BailingMoeV3VLForConditionalGeneration DiffusionGemmaForBlockDiffusion GigaChat35ForCausalLM "
        "GigaChat35ForCausalLMNextN IQuestQ1ForCausalLM IQuestQ1MTP LiLiCorrDraftModel"
    ),
    "0.5.22": "EmbeddingGemma2Model ExaoneMoeForCausalLM",
    "0.5.23": (
        "BeamForCausalLM DFlash2BeamDraftModel DSparkMiniMaxDraftModel MiniCPMV4_7ForConditionalGeneration "
        "MiniMaxDFlash2DraftModel MuseSparkForConditionalGeneration"
    ),
}
#: Classes that SGLang refuses before a release.
_SGLANG: Mapping[str, str] = {
    "DeepseekV3ForCausalLM": "0.4.0.post1",
    "Qwen2_5_VLForConditionalGeneration": "0.4.3.post1",
    "Gemma3ForCausalLM": "0.4.4.post1",
    "Gemma3ForConditionalGeneration": "0.4.4.post1",
    "Llama4ForConditionalGeneration": "0.4.5",
    "Qwen3ForCausalLM": "0.4.5.post1",
    "Qwen3MoeForCausalLM": "0.4.5.post1",
    "Glm4MoeForCausalLM": "0.4.9.post1",
    "GptOssForCausalLM": "0.4.10.post1",
    "Qwen3NextForCausalLM": "0.5.1.post1",
    "DeepseekV32ForCausalLM": "0.5.2.post1",
}

_TGI: Mapping[str, str] = {
    "Qwen2_5_VLForConditionalGeneration": "3.1.1",
    "Gemma3ForCausalLM": "3.2.0",
    "Gemma3ForConditionalGeneration": "3.2.0",
    "Llama4ForConditionalGeneration": "3.2.2",
    "Qwen3ForCausalLM": "3.2.2",
    "Qwen3MoeForCausalLM": "3.2.2",
}

_LLAMA_CPP: Mapping[str, str] = {
    "Olmo2ForCausalLM": "b3996",
    "PhiMoEForCausalLM": "b4235",
    **dict.fromkeys(("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"), "b4754"),
    **dict.fromkeys(("Llama4ForConditionalGeneration", "Qwen3ForCausalLM", "Qwen3MoeForCausalLM"), "b4981"),
    **dict.fromkeys(
        (
            *(
                "GptOssForCausalLM",
                "Glm4MoeForCausalLM",
                "SmolLM3ForCausalLM",
                "Exaone4ForCausalLM",
                "ArceeForCausalLM",
            ),
            *("Ernie4_5ForCausalLM", "Ernie4_5_MoeForCausalLM", "HunYuanDenseV1ForCausalLM"),
            "GraniteMoeHybridForCausalLM",
        ),
        "b5641",
    ),
    **dict.fromkeys(("NemotronHForCausalLM", "SeedOssForCausalLM"), "b6134"),
    "ApertusForCausalLM": "b6432",
    **dict.fromkeys(
        (
            *("Qwen3NextForCausalLM", "MiniMaxM2ForCausalLM"),
            *("Qwen3VLForConditionalGeneration", "Qwen3VLMoeForConditionalGeneration"),
        ),
        "b6674",
    ),
    "MiMoV2FlashForCausalLM": "b7348",
    **dict.fromkeys(
        (
            *("Qwen3_5ForConditionalGeneration", "Qwen3_5MoeForConditionalGeneration"),
            *("GlmMoeDsaForCausalLM", "KimiLinearForCausalLM"),
        ),
        "b7837",
    ),
    **dict.fromkeys(("Gemma4ForConditionalGeneration", "DeepseekV4ForCausalLM"), "b8391"),
    **dict.fromkeys(("MiniMaxM3SparseForCausalLM", "MiniMaxM3SparseForConditionalGeneration"), "b10069"),
    "KimiK3ForConditionalGeneration": "b10362",
}

_TENSORRT_LLM: Mapping[str, str] = {
    **dict.fromkeys(("Qwen3ForCausalLM", "Qwen3MoeForCausalLM", "NemotronHForCausalLM"), "0.19.0.post1"),
    **dict.fromkeys(("Exaone4ForCausalLM", "GptOssForCausalLM", "Glm4MoeForCausalLM"), "0.21.0.post1"),
    **dict.fromkeys(("SeedOssForCausalLM", "HunYuanDenseV1ForCausalLM", "DeepseekV32ForCausalLM"), "1.0.0.post1"),
    **dict.fromkeys(
        ("Qwen3NextForCausalLM", *("Qwen3VLForConditionalGeneration", "Qwen3VLMoeForConditionalGeneration")),
        "1.1.0.post1",
    ),
}

#: By release of Transformers the types of models (`model_type` of config.json) that it has and the last one looked into before it
#: had not.
_TRANSFORMERS: Mapping[str, str] = {
    "4.47.0": "olmo2",
    "4.48.0": "aria bamba cohere2 emu3 modernbert",
    "4.49.0": "granitemoeshared helium qwen2_5_vl zamba2",
    "4.50.0": "aya_vision gemma3 gemma3_text mistral3 siglip2 smolvlm",
    "4.51.0": "deepseek_v3 llama4 llama4_text phi4_multimodal qwen3 qwen3_moe",
    "4.52.1": "bitnet glm4 granite_speech granitemoehybrid internvl janus qwen2_5_omni",
    "4.53.0": "arcee dots1 falcon_h1 gemma3n gemma3n_text glm4v minimax smollm3",
    "4.54.0": "deepseek_v2 deepseek_vl doge ernie4_5 ernie4_5_moe exaone4 glm4_moe lfm2 voxtral xlstm",
    "4.55.0": "cohere2_vision gpt_oss",
    "4.56.0": "apertus florence2 glm4v_moe hunyuan_v1_dense hunyuan_v1_moe ovis2 seed_oss",
    "4.57.0": (
        "flex_olmo lfm2_vl longcat_flash ministral olmo3 qwen3_next qwen3_omni_moe qwen3_vl qwen3_vl_moe vaultgemma"
    ),
    "5.0.0": (
        "afmoe ernie4_5_vl_moe glm46v glm4_moe_lite glm_image lfm2_moe lighton_ocr minimax_m2 ministral3 "
        "nanochat paddleocr_vl solar_open"
    ),
    "5.1.0": "exaone_moe glm_ocr youtu",
    "5.2.0": "glm_moe_dsa qwen3_5 qwen3_5_text qwen3_5_moe qwen3_5_moe_text voxtral_realtime",
    "5.3.0": "eurobert nemotron_h olmo_hybrid",
    "5.5.0": "gemma4 gemma4_text jina_embeddings_v3 mistral4 nomic_bert",
    "5.9.0": "cohere2_moe deepseek_v4 exaone4_5 granite4_vision hy_v3 hyperclovax laguna minicpmv4_6",
    "5.15.0": (
        "deepseek_v32 deepseek_ocr2 gemma4_unified hunyuan_vl kimi_k25 mimo_v2_flash minicpm3 "
        "minimax_m3_vl qwen3_asr zaya"
    ),
    "5.20.0": "bailing_hybrid gte hy_v4 kimi_linear molmo2 nemotron_h_omni step3p5 step3p7",
    "5.24.0": "exaone internlm3 iquestcoder lfm3 mistral_large4 sarvam_moe",
}


def _by_class(rows: Mapping[str, str]) -> dict[str, str]:
    return {name: release for release, names in rows.items() for name in names.split()}


#: What each engine has, by the first release that has it.
_HAS: Mapping[str, Mapping[str, str]] = {
    "vllm": _by_class(_VLLM_REGISTRY) | {"Qwen2VLForConditionalGeneration": "0.6.3"},  # see above
    "sglang": _by_class(_SGLANG_CLASSES),
    "tgi": _TGI,
    "llama.cpp": _LLAMA_CPP,
    "tensorrt-llm": _TENSORRT_LLM,
}
#: What each engine refuses before a release.
_REFUSES = {**_HAS, "vllm": {name: _HAS["vllm"][name] for name in _VLLM_ALONE.split()}, "sglang": _SGLANG}


def first_release(engine: str, architecture: str) -> str | None:
    """The first release that may run an architecture, which any before it refuses; None where the table does not say."""
    return _REFUSES.get(engine, {}).get(architecture)


def release_for(engine: str, name: str) -> str | None:
    """The first release that knows what an engine refuses, a class or a type of model: `Qwen3NextForCausalLM`, `qwen3_next`, `qwen3next`.

    A class without a head (`LlamaModel`) is not what a type of model stands for.
    """
    rows = _HAS.get(engine, {})
    alike = (first for known, first in rows.items() if not known.endswith("Model") and _bare(known) == _bare(name))
    return rows.get(name) or next(alike, None)


def transformers_for(name: str) -> str | None:
    """A release of Transformers that knows a type of model, or a class; None where the table does not say."""
    bare = _bare(name)
    return next((r for r, types in _TRANSFORMERS.items() if bare in (_bare(t) for t in types.split())), None)


def _bare(name: str) -> str:
    """A class or a type of model without what its spelling adds."""
    return re.sub(r"(?:For(?:CausalLM|ConditionalGeneration)|Model|Config)$|[^a-zA-Z0-9]", "", name).lower()
