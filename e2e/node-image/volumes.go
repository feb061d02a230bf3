package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

const (
	provisionerName        = "kind.weir.dev/directory"
	selectedNodeAnnotation = "volume.kubernetes.io/selected-node"
	provisionedBy          = "pv.kubernetes.io/provisioned-by"
	// Where the volumes lie, on the node and in the provisioner's container alike.
	volumesRoot = "/var/local/volumes"
)

// provisioner runs once on each node. It gives each claim whose pod the scheduler
// put there a directory as its volume, grows it by saying so, and removes it.
type provisioner struct {
	api     kubernetes.Interface
	node    string
	claims  corelisters.PersistentVolumeClaimLister
	volumes corelisters.PersistentVolumeLister
	classes storagelisters.StorageClassLister
}

func runVolumes() int {
	config, err := rest.InClusterConfig()
	if err != nil {
		return fail("volumes", err)
	}
	api, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fail("volumes", err)
	}
	factory := informers.NewSharedInformerFactory(api, 0)
	p := &provisioner{
		api:     api,
		node:    os.Getenv("NODE_NAME"),
		claims:  factory.Core().V1().PersistentVolumeClaims().Lister(),
		volumes: factory.Core().V1().PersistentVolumes().Lister(),
		classes: factory.Storage().V1().StorageClasses().Lister(),
	}
	changed := make(chan struct{}, 1)
	notify := func(any) {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	for _, informer := range []cache.SharedIndexInformer{
		factory.Core().V1().PersistentVolumeClaims().Informer(),
		factory.Core().V1().PersistentVolumes().Informer(),
		factory.Storage().V1().StorageClasses().Informer(),
	} {
		if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: notify, DeleteFunc: notify, UpdateFunc: func(_, object any) { notify(object) },
		}); err != nil {
			return fail("volumes", err)
		}
	}
	factory.Start(nil)
	factory.WaitForCacheSync(nil)
	for {
		select {
		case <-changed:
		case <-time.After(15 * time.Second):
		}
		p.reconcile(context.Background())
	}
}

// reconcile brings every claim and volume of this node forward. The whole state is
// looked at each time; there is little of it.
func (p *provisioner) reconcile(ctx context.Context) {
	claims, err := p.claims.List(labels.Everything())
	if err != nil {
		log.Print(err)
	}
	for _, claim := range claims {
		if claim.Annotations[selectedNodeAnnotation] != p.node {
			continue
		}
		if err := p.provision(ctx, claim); err != nil {
			log.Printf("claim %s/%s: %v", claim.Namespace, claim.Name, err)
		}
	}
	volumes, err := p.volumes.List(labels.Everything())
	if err != nil {
		log.Print(err)
	}
	for _, volume := range volumes {
		if volume.Annotations[provisionedBy] != provisionerName || volume.Labels[corev1.LabelHostname] != p.node {
			continue
		}
		if err := p.maintain(ctx, volume); err != nil {
			log.Printf("volume %s: %v", volume.Name, err)
		}
	}
}

func (p *provisioner) provision(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	if claim.Spec.VolumeName != "" || claim.Spec.StorageClassName == nil || claim.DeletionTimestamp != nil {
		return nil
	}
	class, err := p.classes.Get(*claim.Spec.StorageClassName)
	if apierrors.IsNotFound(err) || err == nil && class.Provisioner != provisionerName {
		return nil
	}
	if err != nil {
		return err
	}
	name := "pvc-" + string(claim.UID)
	if _, err := p.volumes.Get(name); err == nil {
		return nil // Made before; it is not bound yet.
	}
	directory := filepath.Join(volumesRoot, name)
	if err := os.MkdirAll(directory, 0o777); err != nil {
		return err
	}
	if err := os.Chmod(directory, 0o777); err != nil { // Whatever the umask.
		return err
	}
	policy := corev1.PersistentVolumeReclaimDelete
	if class.ReclaimPolicy != nil {
		policy = *class.ReclaimPolicy
	}
	_, err = p.api.CoreV1().PersistentVolumes().Create(ctx, p.volume(name, directory, policy, claim), metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

func (p *provisioner) volume(
	name, directory string, policy corev1.PersistentVolumeReclaimPolicy, claim *corev1.PersistentVolumeClaim,
) *corev1.PersistentVolume {
	here := corev1.NodeSelectorRequirement{
		Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{p.node},
	}
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{
			Name:        name,
			Labels:      map[string]string{corev1.LabelHostname: p.node},
			Annotations: map[string]string{provisionedBy: provisionerName},
		},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: claim.Spec.Resources.Requests[corev1.ResourceStorage]},
			AccessModes:                   claim.Spec.AccessModes,
			VolumeMode:                    claim.Spec.VolumeMode,
			PersistentVolumeReclaimPolicy: policy,
			StorageClassName:              *claim.Spec.StorageClassName,
			PersistentVolumeSource:        corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: directory}},
			ClaimRef: &corev1.ObjectReference{
				APIVersion: "v1", Kind: "PersistentVolumeClaim",
				Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID, ResourceVersion: claim.ResourceVersion,
			},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{
				NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{here}}},
			}},
		},
	}
}

// maintain deletes a released volume, and grows one whose claim asks for more.
func (p *provisioner) maintain(ctx context.Context, volume *corev1.PersistentVolume) error {
	switch {
	case volume.Status.Phase == corev1.VolumeReleased && volume.DeletionTimestamp == nil &&
		volume.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete:
		if err := os.RemoveAll(filepath.Join(volumesRoot, volume.Name)); err != nil {
			return err
		}
		err := p.api.CoreV1().PersistentVolumes().Delete(ctx, volume.Name, metav1.DeleteOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	case volume.Status.Phase == corev1.VolumeBound:
		claim, err := p.claims.PersistentVolumeClaims(volume.Spec.ClaimRef.Namespace).Get(volume.Spec.ClaimRef.Name)
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		return p.grow(ctx, volume, claim)
	}
	return nil
}

func (p *provisioner) grow(ctx context.Context, volume *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim) error {
	wanted := claim.Spec.Resources.Requests[corev1.ResourceStorage]
	has, status := volume.Spec.Capacity[corev1.ResourceStorage], claim.Status.Capacity[corev1.ResourceStorage]
	if claim.UID != volume.Spec.ClaimRef.UID || claim.Status.Phase != corev1.ClaimBound {
		return nil
	}
	capacity := map[string]any{"storage": wanted.String()}
	if wanted.Cmp(has) > 0 {
		patch, err := json.Marshal(map[string]any{"spec": map[string]any{"capacity": capacity}})
		if err != nil {
			return err
		}
		_, err = p.api.CoreV1().PersistentVolumes().Patch(ctx, volume.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
		if err != nil {
			return fmt.Errorf("grow the volume: %w", err)
		}
	}
	if wanted.Cmp(status) > 0 {
		patch, err := json.Marshal(map[string]any{"status": map[string]any{"capacity": capacity}})
		if err != nil {
			return err
		}
		_, err = p.api.CoreV1().PersistentVolumeClaims(claim.Namespace).Patch(ctx, claim.Name,
			types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
		if err != nil {
			return fmt.Errorf("tell the claim: %w", err)
		}
	}
	return nil
}
